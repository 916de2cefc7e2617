"""A peer's program as the coordinator sees it: asked one thing at a time."""

from __future__ import annotations

import json
import os
import select
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.peers.contestants import PeerError
from benchmarks.peers.environments import CHECKOUT, LOGS

TIMEOUT_SECONDS = 600


class Process:
    """Run `benchmarks.peers.programs.NAME` until the end of a `with` block.

    Args:
        python: interpreter of the peer's environment.
        program: name of the module.
        log_name: what it writes besides replies goes to `.bench/logs/LOG_NAME.log`.
        threads: for libraries that ask the environment.

    Attributes:
        idle_processor_seconds, idle_wall_seconds: used and gone by between its turns.
    """

    def __init__(self, python: Path, program: str, log_name: str, threads: int) -> None:
        self.idle_processor_seconds = self.idle_wall_seconds = 0.0
        LOGS.mkdir(parents=True, exist_ok=True)
        with (LOGS / f"{log_name}.log").open("w") as log:
            self._process = subprocess.Popen(
                [python, "-m", f"benchmarks.peers.programs.{program}"],
                cwd=CHECKOUT,
                env={**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def ask(self, method: str, **arguments: Any) -> Any:
        """Send a request and return its result.

        Raises:
            PeerError: the program failed, ended, or took longer than `TIMEOUT_SECONDS`.
        """
        reply = self._reply(json.dumps({"method": method, "arguments": arguments}))
        if "error" in reply:
            raise PeerError(f"{method}: {reply['error']}")
        processor, wall = reply["idle"]
        self.idle_processor_seconds += processor
        self.idle_wall_seconds += wall
        return reply["result"]

    def _reply(self, request: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(request + "\n")
            self._process.stdin.flush()
            ready, _, _ = select.select([self._process.stdout], [], [], TIMEOUT_SECONDS)
            line = self._process.stdout.readline() if ready else None
        except BrokenPipeError:
            line = ""
        if line is None:
            raise PeerError(f"no reply within {TIMEOUT_SECONDS} s")
        if not line:
            raise PeerError(f"its program ended with status {self._process.wait()}")
        reply: dict[str, Any] = json.loads(line)
        return reply
