"""Keep snapshots in an object store, or wherever fsspec reaches."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

from streamingllm.errors import ConfigError, SnapshotError, first_line
from streamingllm.sessions.snapshot_files import SHARED_SWEEP_SECONDS, snapshot_name

_OBJECT_STORES = {"s3", "gs", "gcs", "abfs", "az", "oss", "memory"}
_HINT = "pip install 'streamingllm[cluster]' and the package of fsspec for its protocol"


class SnapshotObjects:
    """Keep files under a URL of fsspec, such as `s3://bucket/folder`; `SnapshotFiles`.

    An object store shows an object once it is whole. Other file systems get it under another name
    first.

    Args:
        url: of a folder, which is made where folders exist.

    Raises:
        ConfigError: fsspec, or its package for the protocol, is not installed.
        SnapshotError: the folder cannot be made.
    """

    def __init__(self, url: str) -> None:
        try:
            import fsspec

            self._files: Any
            self._files, self._folder = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise ConfigError(
                f"snapshots={url!r} cannot be used ({first_line(error)}); {_HINT}"
            ) from error
        protocols = self._files.protocol
        named = {protocols} if isinstance(protocols, str) else {*protocols}
        self._shows_whole_files = bool(named & _OBJECT_STORES)
        try:
            self._files.makedirs(self._folder, exist_ok=True)
        except Exception as error:  # each protocol has errors of its own
            raise SnapshotError(f"{url}: cannot be made ({first_line(error)})") from error

    def write(self, session_id: str, content: bytes) -> str:
        """Write a file and return its name; see `SnapshotFiles`."""
        name = snapshot_name(session_id)
        first = self._path(name if self._shows_whole_files else f"{name}.partial")
        try:
            self._files.pipe_file(first, content)
            if not self._shows_whole_files:
                self._files.mv(first, self._path(name))
        except Exception as error:
            raise SnapshotError(f"{first}: cannot be written ({first_line(error)})") from error
        return name

    def read(self, name: str) -> bytes:
        """Return the content of a file; see `SnapshotFiles`."""
        try:
            return bytes(self._files.cat_file(self._path(name)))
        except Exception as error:
            path = self._path(name)
            raise SnapshotError(f"{path}: cannot be read ({first_line(error)})") from error

    def delete(self, name: str) -> None:
        """Delete a file; nothing happens if it is gone."""
        try:
            self._files.rm_file(self._path(name))
        except FileNotFoundError:
            return
        except Exception as error:
            path = self._path(name)
            raise SnapshotError(f"{path}: cannot be deleted ({first_line(error)})") from error

    def sweep(self, names: Collection[str]) -> int:
        """Delete files of these names' folder that are older than an hour and not among them."""
        kept, num_deleted = set(names), 0
        for path in self._files.ls(self._folder, detail=False):
            name = str(path).rpartition("/")[2]
            if name not in kept and self._age_seconds(path) > SHARED_SWEEP_SECONDS:
                self.delete(name)
                num_deleted += 1
        return num_deleted

    def _age_seconds(self, path: str) -> float:
        """Return the age of a file; 0 if the file system does not know it."""
        try:
            made: datetime = self._files.modified(path)
        except (NotImplementedError, FileNotFoundError):
            return 0.0
        return (datetime.now(made.tzinfo) - made).total_seconds()

    def _path(self, name: str) -> str:
        return f"{self._folder}/{name}"
