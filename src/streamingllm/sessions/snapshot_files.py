"""Keep snapshots as files next to a database, each whole or not there."""

from __future__ import annotations

import os
from collections.abc import Collection
from hashlib import blake2b
from pathlib import Path
from uuid import uuid4

from streamingllm.errors import SnapshotError
from streamingllm.files import fsync_folder

_SUFFIX = ".safetensors"


class SnapshotFiles:
    """Write, read and delete the files of snapshots.

    A file is never changed: a new snapshot has a new name, and the database says which one counts.

    Args:
        folder: made if it is missing.

    Raises:
        SnapshotError: the folder cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SnapshotError(f"{folder}: cannot be made ({error.strerror})") from error

    def write(self, session_id: str, content: bytes) -> str:
        """Write a file durably and return its name.

        Raises:
            SnapshotError: it cannot be written; nothing is left of it.
        """
        digest = blake2b(session_id.encode(), digest_size=12).hexdigest()
        name = f"{digest}-{uuid4().hex[:12]}{_SUFFIX}"
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
        """Return the content of a file.

        Raises:
            SnapshotError: it is missing or cannot be read.
        """
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
        for file in doomed:
            file.unlink(missing_ok=True)
        return len(doomed)
