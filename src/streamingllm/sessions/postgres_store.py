"""Sessions in a PostgreSQL database, which several processes share."""

from __future__ import annotations

from streamingllm.sessions.postgres_database import PostgresDatabase
from streamingllm.sessions.postgres_search import PostgresSearch
from streamingllm.sessions.snapshot_files import SnapshotFiles
from streamingllm.sessions.sql_store import SqlStore


class PostgresStore(SqlStore):
    """Keep sessions in a PostgreSQL database; a `SessionStore`.

    Args:
        url: such as `postgresql://user:password@host/name`.
        snapshots: where contents of snapshots go; None keeps them in the database.

    Raises:
        ConfigError: psycopg is not installed.
        SnapshotError: the database cannot be reached, or is none of this release.
    """

    def __init__(self, url: str, *, snapshots: SnapshotFiles | None = None) -> None:
        database = PostgresDatabase(url)
        try:
            super().__init__(database, PostgresSearch(database), snapshots)
        except BaseException:
            database.close()
            raise
