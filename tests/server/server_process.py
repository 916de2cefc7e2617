"""A `streamingllm serve` process that can be killed at any moment and started again."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx2
import psutil

_START_SECONDS = 180
_COMMAND = "from streamingllm.cli.app import main; main()"


class Launcher:
    """Fork servers from a process that has imported all they need; see `launcher`."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.server.launcher"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, arguments: list[str]) -> psutil.Process:
        """Start a server."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(arguments) + "\n")
        self._process.stdin.flush()
        return psutil.Process(int(self._process.stdout.readline()))

    def close(self) -> None:
        """End; servers that run go on."""
        self._process.kill()
        self._process.wait()


class ServerProcess:
    """Run the command in a process of its own, on one port and one data folder.

    Args:
        model: folder or name of the model.
        data_dir: of the sessions; the log is beside them.
        options: further flags of the command.
        launcher: forks the server from a process that has imported all; None starts an interpreter.
    """

    def __init__(
        self,
        model: Path | str,
        data_dir: Path,
        *options: str,
        launcher: Launcher | None = None,
    ) -> None:
        data_dir.mkdir(parents=True, exist_ok=True)
        self.log = data_dir / "server.log"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._arguments = [
            *("serve", "--model", str(model), "--port", str(port), "--data-dir", str(data_dir)),
            *options,
        ]
        self._launcher = launcher
        self._process: psutil.Process | None = None

    @property
    def process(self) -> psutil.Process:
        """The server that runs."""
        assert self._process is not None
        return self._process

    def start(self) -> float:
        """Start, wait until requests are accepted, and return the seconds that took."""
        began = time.perf_counter()
        if self._launcher is None:
            with self.log.open("ab") as log:
                self._process = psutil.Popen(
                    [sys.executable, "-c", _COMMAND, *self._arguments], stdout=log, stderr=log
                )
        else:
            self._process = self._launcher.start(self._arguments)
        while not self._is_ready():
            assert self._process.is_running(), self.log.read_text()[-2000:]
            assert time.perf_counter() - began < _START_SECONDS, "the server does not become ready"
            time.sleep(0.05)
        return time.perf_counter() - began

    def kill(self) -> None:
        """Kill it without a warning."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()

    def _is_ready(self) -> bool:
        try:
            return httpx2.get(f"{self.url}/ready", timeout=5).status_code == 200
        except httpx2.TransportError:
            return False
