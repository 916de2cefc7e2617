"""Run commands as the shell does."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from streamingllm.cli import main

_LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
from streamingllm.cli import main
main(sys.argv[2:])
"""


def run_command(*arguments: str) -> int:
    """Run a command in this process; return its exit code."""
    try:
        main(arguments)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def run_with_full_disk(
    arguments: Sequence[str], folder: Path, max_file_bytes: int
) -> subprocess.CompletedProcess[str]:
    """Run a command in `folder`, in a process whose files can grow no longer than that."""
    return subprocess.run(
        [sys.executable, "-c", _LIMITED, str(max_file_bytes), *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
