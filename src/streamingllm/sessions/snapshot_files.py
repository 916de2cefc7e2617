"""Keep snapshots as files next to a database, each whole or not there."""

from __future__ import annotations

import os
import time
from collections.abc import Collection
from hashlib import blake2b
from pathlib import Path
from typing import Protocol
from uuid import uuid4

from streamingllm.errors import SnapshotError
from streamingllm.files import fsync_folder

_SUFFIX = ".safetensors"
# Of a shared folder: a file that no row names may be one that another process writes just now.
SHARED_SWEEP_SECONDS = 3600.0


class SnapshotFiles(Protocol):
    """Write, read and delete the files of snapshots.

    A file is never changed: a new snapshot has a new name, and the database says which one counts.
    """

    def write(self, session_id: str, content: bytes) -> str:
        """Write a file durably and return its name.

        Raises:
            SnapshotError: it cannot be written; nothing is left of it.
        """
        ...

    def read(self, name: str) -> bytes:
        """Return the content of a file.

        Raises:
            SnapshotError: it is missing or cannot be read.
        """
        ...

    def delete(self, name: str) -> None:
        """Delete a file; nothing happens if it is gone."""
        ...

    def sweep(self, names: Collection[str]) -> int:
        """Delete all files but those of these names; return how many."""
        ...


class SnapshotFolder:
    """Keep files in a folder; `SnapshotFiles`.

    Args:
        folder: made if it is missing.
        is_shared: other processes write to it, so a sweep leaves files of the last hour.

    Raises:
        SnapshotError: the folder cannot be made.
    """

    def __init__(self, folder: Path, *, is_shared: bool = False) -> None:
        self.folder = folder
        self._is_shared = is_shared
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SnapshotError(f"{folder}: cannot be made ({error.strerror})") from error

    def write(self, session_id: str, content: bytes) -> str:
        """Write a file durably and return its name; see `SnapshotFiles`."""
        name = snapshot_name(session_id)
        partial = self.folder / f"{name}.partial"
        try:
            with partial.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            partial.rename(self.folder / name)
            fsync_folder(self.folder)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise SnapshotError(f"{partial}: cannot be written ({error.strerror})") from error
        return name

    def read(self, name: str) -> bytes:
        """Return the content of a file; see `SnapshotFiles`."""
        try:
            return (self.folder / name).read_bytes()
        except OSError as error:
            raise SnapshotError(
                f"{self.folder / name}: cannot be read ({error.strerror})"
            ) from error

    def delete(self, name: str) -> None:
        """Delete a file; nothing happens if it is gone."""
        (self.folder / name).unlink(missing_ok=True)

    def sweep(self, names: Collection[str]) -> int:
        """Delete all files but those of these names; return how many."""
        kept = set(names)
        doomed = [file for file in self.folder.iterdir() if file.name not in kept]
        doomed = [file for file in doomed if not self._may_be_new(file)]
        for file in doomed:
            file.unlink(missing_ok=True)
        return len(doomed)

    def _may_be_new(self, file: Path) -> bool:
        if not self._is_shared:
            return False
        try:
            return file.stat().st_mtime > time.time() - SHARED_SWEEP_SECONDS
        except OSError:  # another process has deleted it
            return True


def snapshot_name(session_id: str) -> str:
    """Return a new name for a snapshot of a session."""
    digest = blake2b(session_id.encode(), digest_size=12).hexdigest()
    return f"{digest}-{uuid4().hex[:12]}{_SUFFIX}"
