"""A child ends with its parent, however that ends, and takes its own children along."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from streamingllm.graphs.child_process import ChildProcess

_MODULE = """
import subprocess, sys, time
from pathlib import Path

def main(report, task):
    if task == "fail":
        raise RuntimeError("first line\\nlast line")
    if task == "sleep":
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        Path(report + ".tmp").write_text(str(child.pid))
        Path(report + ".tmp").rename(report)
        time.sleep(600)
"""
_PARENT = """
import json, sys, time
from pathlib import Path
from streamingllm.graphs.child_process import ChildProcess
report, folder = sys.argv[1:]
child = ChildProcess("work", {"report": report, "task": "sleep"}, Path(folder))
print(child.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the module path with a module `work`."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "work.py").write_text(_MODULE)
    monkeypatch.syspath_prepend(folder)
    return folder


def run(folder: Path, task: str) -> ChildProcess:
    folder.mkdir()
    return ChildProcess("work", {"report": str(folder / "pid"), "task": task}, folder)


def wait_for(path: Path) -> int:
    """Return the number in a file, once it is there."""
    while not path.exists():
        time.sleep(0.02)
    return int(path.read_text())


def wait_for_end(pid: int) -> None:
    """Return once a process has ended, also if nobody has asked for its exit code."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        while process.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.02)


@pytest.mark.usefixtures("modules")
def test_success_and_failure_are_told(tmp_path: Path) -> None:
    assert run(tmp_path / "a", "nothing").finish() is None
    assert run(tmp_path / "b", "fail").finish() == "last line"


@pytest.mark.usefixtures("modules")
def test_a_stopped_child_takes_its_children_along(tmp_path: Path) -> None:
    child = run(tmp_path / "a", "sleep")
    grandchild = wait_for(tmp_path / "a" / "pid")
    was_running = child.running
    child.stop()
    assert (was_running, child.running) == (True, False)
    wait_for_end(grandchild)
    child.stop()  # does nothing more


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_a_child_ends_with_its_parent(
    number: signal.Signals, modules: Path, tmp_path: Path
) -> None:
    report, folder = tmp_path / "pid", tmp_path / "work"
    folder.mkdir()
    path = os.pathsep.join([str(modules), *(entry for entry in sys.path if entry)])
    parent = subprocess.Popen(
        [sys.executable, "-c", _PARENT, str(report), str(folder)],
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert parent.stdout is not None
    child = json.loads(parent.stdout.readline())
    grandchild = wait_for(report)
    parent.send_signal(number)
    parent.wait()
    parent.stdout.close()
    wait_for_end(child)
    wait_for_end(grandchild)
    assert not folder.exists()
