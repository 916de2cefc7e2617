"""Open the store of sessions that settings name."""

from __future__ import annotations

from pathlib import Path

import platformdirs

from streamingllm.errors import ConfigError
from streamingllm.server.settings import ServerSettings
from streamingllm.sessions.postgres_store import PostgresStore
from streamingllm.sessions.snapshot_files import SnapshotFiles, SnapshotFolder
from streamingllm.sessions.snapshot_objects import SnapshotObjects
from streamingllm.sessions.sql_store import SqlStore
from streamingllm.sessions.sqlite_store import SqliteStore

_DATABASE = "sessions.sqlite"
_SNAPSHOTS = "snapshots"


def data_folder(settings: ServerSettings) -> Path:
    """Return the folder of sessions and snapshots, made if it is missing.

    Raises:
        ConfigError: it cannot be made.
    """
    folder = Path(settings.data_dir or platformdirs.user_data_dir("streamingllm"))
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ConfigError(
            f"data_dir={str(folder)!r} cannot be made ({error.strerror}); name another folder"
        ) from error
    return folder


def open_store(settings: ServerSettings, *, is_shared: bool = False) -> SqlStore:
    """Return the store of sessions that settings name.

    Args:
        settings: of the server.
        is_shared: other processes open it as well.

    Raises:
        ConfigError: a package that it needs is not installed.
        SessionConflictError: another process has it to itself.
        SnapshotError: it cannot be opened.
    """
    files: SnapshotFiles
    if "://" in settings.snapshots:
        files = SnapshotObjects(settings.snapshots)
    else:
        folder = Path(settings.snapshots or data_folder(settings) / _SNAPSHOTS)
        files = SnapshotFolder(folder, is_shared=is_shared)
    if settings.database:
        return PostgresStore(settings.database, snapshots=files)
    path = data_folder(settings) / _DATABASE
    return SqliteStore(path, snapshots=files, is_exclusive=not is_shared)
