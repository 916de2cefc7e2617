"""Report how far a long job has come."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

Progress = Callable[[str, int, int], None]
"""Called with a stage's name, the bytes done and the bytes in all, perhaps from another thread."""

_INTERVAL_SECONDS = 0.1


def ignore_progress(stage: str, done_bytes: int, total_bytes: int) -> None:
    """Show nothing."""


@contextmanager
def watch_growth(folder: Path, stage: str, total_bytes: int, progress: Progress) -> Iterator[None]:
    """Report how much `folder` has grown while the body runs, and the total once it succeeds.

    Downloads by others (pip, the hub's client) are watched from outside, by the files they write.
    """
    start_bytes = folder_bytes(folder)
    finished = threading.Event()

    def watch() -> None:
        grown_bytes = 0
        while not finished.wait(_INTERVAL_SECONDS):
            # The largest so far: a downloader may move its files elsewhere when it has them.
            grown_bytes = max(grown_bytes, folder_bytes(folder) - start_bytes)
            progress(stage, min(grown_bytes, total_bytes), total_bytes)

    progress(stage, 0, total_bytes)
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        finished.set()
        watcher.join()
    progress(stage, total_bytes, total_bytes)


def folder_bytes(folder: Path) -> int:
    """Sum the lengths of the files under `folder`; what vanishes meanwhile counts nothing."""
    total_bytes = 0
    for parent, _, names in os.walk(folder):  # unlike `rglob` it passes over folders that are gone
        for path in (Path(parent, name) for name in names):
            with suppress(FileNotFoundError):
                if path.is_file() and not path.is_symlink():
                    total_bytes += path.stat().st_size
    return total_bytes
