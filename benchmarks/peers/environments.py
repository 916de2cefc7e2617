"""Every peer's own Python, made once from exact versions and kept under `.bench/`."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers.contestants import OURS, PeerError

CHECKOUT = Path(__file__).parents[2]
BENCH = CHECKOUT / ".bench"
LOGS = BENCH / "logs"
_REQUIREMENTS = Path(__file__).parent / "requirements"


def python_of(program: str) -> Path:
    """Return the interpreter that runs a program; ours is the one that runs this.

    Raises:
        PeerError: its environment cannot be made.
    """
    if program == OURS:
        return Path(sys.executable)
    folder = BENCH / "environments" / program
    wanted = (_REQUIREMENTS / f"{program}.txt").read_text()
    # Written last, so that an interrupted install is begun again.
    stamp = folder / "installed.txt"
    python = folder / "bin" / "python"
    if stamp.is_file() and stamp.read_text() == wanted:
        return python
    shutil.rmtree(folder, ignore_errors=True)
    start = time.perf_counter()
    run_logged([sys.executable, "-m", "venv", str(folder)], f"{program}-environment")
    requirements = _REQUIREMENTS / f"{program}.txt"
    run_logged([str(python), "-m", "pip", "install", "-r", str(requirements)], f"{program}-install")
    stamp.write_text(wanted)
    seconds = time.perf_counter() - start
    print(f"made the environment of {program} in {seconds:.0f} s", file=sys.stderr)
    return python


def run_logged(command: Sequence[str], log_name: str) -> None:
    """Run a command in the checkout; its output goes to `.bench/logs/`.

    Raises:
        PeerError: it failed; the message has its last line.
    """
    LOGS.mkdir(parents=True, exist_ok=True)
    log = LOGS / f"{log_name}.log"
    with log.open("w") as output:
        status = subprocess.run(
            command, cwd=CHECKOUT, stdout=output, stderr=subprocess.STDOUT, check=False
        ).returncode
    if status != 0:
        lines = log.read_text(errors="replace").strip().splitlines()
        raise PeerError(f"{log_name} failed ({log.relative_to(CHECKOUT)}): {''.join(lines[-1:])}")
