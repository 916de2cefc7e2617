"""A `streamingllm serve` process that can be killed at any moment and started again."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx2

_START_SECONDS = 180
_COMMAND = "from streamingllm.cli.app import main; main()"


class ServerProcess:
    """Run the command in a process of its own, on one port and one data folder.

    Args:
        model: folder or name of the model.
        data_dir: of the sessions; the log is beside them.
        options: further flags of the command.
    """

    def __init__(self, model: Path | str, data_dir: Path, *options: str) -> None:
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
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Process id of the server that runs."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> float:
        """Start, wait until requests are accepted, and return the seconds that took."""
        began = time.perf_counter()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _COMMAND, *self._arguments], stdout=log, stderr=log
            )
        while not self._is_ready():
            assert self._process.poll() is None, self.log.read_text()[-2000:]
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
