"""Let one process at a time serve a database."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock, Timeout

from streamingllm.errors import SessionConflictError, SnapshotError


def lock_exclusively(path: Path) -> FileLock:
    """Lock a database against other processes that lock it; the lock ends with the process.

    Args:
        path: of the database; the lock is a file next to it.

    Returns:
        the lock, to release.

    Raises:
        SessionConflictError: another process, or another store of this one, holds it.
        SnapshotError: the file cannot be made.
    """
    lock = FileLock(f"{path}.lock", timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise SessionConflictError(
            f"{path}: is served by another process; stop that one or name another data folder"
        ) from error
    except OSError as error:
        raise SnapshotError(f"{path}.lock: cannot be made ({error.strerror or error})") from error
    return lock
