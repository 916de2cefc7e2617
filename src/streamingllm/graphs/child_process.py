"""A program that runs in a process of its own and ends when its parent ends.

The child reads from a pipe that only its parent holds open. The pipe closes however the parent
ends, also by a signal that no handler sees. The child then removes its folder and ends, together
with the compilers that it has started. (Linux's parent-death signal would follow the thread that
started the child, and threads end earlier than their process.)
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

_PROGRAM = """
import json, sys
arguments = json.loads(sys.argv[1])
sys.path[:] = arguments["path"]
from streamingllm.graphs.child_process import end_with_parent
end_with_parent(arguments["folder"])
import importlib
importlib.import_module(arguments["module"]).main(**arguments["arguments"])
"""


class ChildProcess:
    """Run `main(**arguments)` of a module in a process of its own.

    Args:
        module: its name; it is imported anew.
        arguments: what JSON can express.
        folder: for half-done work and the log of errors; the child removes it if the parent ends.
    """

    def __init__(self, module: str, arguments: Mapping[str, object], folder: Path) -> None:
        self._errors = folder / "errors.txt"
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, _encoded(module, arguments, folder)],
                stdin=subprocess.PIPE,  # stays open, and empty
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,  # a group that can be ended as a whole
            )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Tell whether the process goes on."""
        return self._process.poll() is None

    def wait(self) -> int:
        """Wait for the end and return the exit code."""
        return_code = self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()
        return return_code

    def finish(self) -> str | None:
        """Wait for the end; return None on success, else the last line of the errors."""
        return_code = self.wait()
        if return_code == 0:
            return None
        lines = self._errors.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"exit code {return_code}"

    def stop(self) -> None:
        """End it at once."""
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                _end_group(self._process.pid)
        self.wait()


def end_with_parent(folder: str) -> None:
    """Have this process and its children end, and `folder` removed, when standard input closes."""

    def watch() -> None:
        while os.read(sys.stdin.fileno(), 1):
            pass
        shutil.rmtree(folder, ignore_errors=True)
        _end_group(os.getpid())

    threading.Thread(target=watch, daemon=True).start()


def _encoded(module: str, arguments: Mapping[str, object], folder: Path) -> str:
    described = {"module": module, "arguments": arguments, "folder": str(folder)}
    return json.dumps({**described, "path": [entry for entry in sys.path if entry]})


def _end_group(pid: int) -> None:
    if sys.platform == "win32":
        os.kill(pid, signal.SIGTERM)
    else:
        os.killpg(pid, signal.SIGKILL)
