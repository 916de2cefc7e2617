"""One connection to a PostgreSQL database of sessions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from streamingllm.errors import ConfigError, SnapshotError, first_line
from streamingllm.sessions.postgres_schema import create_tables
from streamingllm.sessions.sql_transactions import SqlTransactions

if TYPE_CHECKING:
    from psycopg import Connection

_HINT = "pip install 'streamingllm[cluster]'"
_PASSWORD = re.compile(r"(?<=://)([^:@/]*):[^@/]*(?=@)")


class PostgresDatabase(SqlTransactions["_Connection"]):
    """Run transactions of any thread, one at a time; a `Database`.

    A connection that the server has closed is made again for the next transaction.

    Args:
        url: such as `postgresql://user:password@host/name`.

    Raises:
        ConfigError: psycopg is not installed.
        SnapshotError: the database cannot be reached, or is none of this release.
    """

    words_of_json = "json_array_elements_text(CAST(? AS json)) AS word (value)"
    _begin_writing = "BEGIN"
    _begin_reading = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"

    def __init__(self, url: str) -> None:
        try:
            import psycopg
        except ImportError as error:
            raise ConfigError(f"store={url_without_password(url)!r} needs {_HINT}") from error
        super().__init__(url_without_password(url), psycopg.Error, (ValueError, TypeError))
        self._url = url
        self.connection = _Connection(self._connected())
        with self.transaction():
            create_tables(self)

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self.connection.connection.close()

    def seconds(self) -> float:
        """Return the time since 1970 of the database's machine."""
        ((seconds,),) = self.run("SELECT CAST(extract(epoch FROM clock_timestamp()) AS float8)")
        return float(seconds)

    def lock(self, name: str) -> None:
        """Bar transactions that lock the same name until the end of this one."""
        self.run("SELECT pg_advisory_xact_lock(hashtextextended(CAST(? AS text), 0))", name)

    def wipe_log(self) -> None:
        """Do nothing: what was deleted leaves the files when the server recycles them."""

    def _begin(self, begin: str) -> None:
        """Begin a transaction, on a new connection if the server has closed the old one."""
        with suppress(self._error):
            self.connection.execute(begin)
        if self.connection.connection.closed:
            self.connection = _Connection(self._connected())
            self.connection.execute(begin)

    def _committed(self) -> None:
        """Do nothing."""

    def _roll_back(self) -> None:
        from psycopg.pq import TransactionStatus

        connection = self.connection.connection
        if not connection.closed and connection.info.transaction_status != TransactionStatus.IDLE:
            with suppress(self._error):
                connection.execute("ROLLBACK")

    def _connected(self) -> Connection[Any]:
        import psycopg

        try:
            return psycopg.connect(self._url, autocommit=True)
        except psycopg.Error as error:
            raise self._unusable(error) from error

    def _unusable(self, error: Exception) -> SnapshotError:
        return SnapshotError(f"{self.name}: cannot be used ({first_line(error)})")


class _Connection:
    """Take question marks for parameters, as SQLite does.

    Args:
        connection: of psycopg, in which transactions are begun and ended by statements.
    """

    def __init__(self, connection: Connection[Any]) -> None:
        self.connection = connection

    def execute(self, statement: str, values: Sequence[Any] = (), /) -> list[Any]:
        """Run a statement and return its rows."""
        cursor = self.connection.execute(_translated(statement), values or None)
        return cursor.fetchall() if cursor.description is not None else []


@lru_cache(maxsize=1024)
def _translated(statement: str) -> bytes:
    return statement.replace("%", "%%").replace("?", "%s").encode()


def url_without_password(url: str) -> str:
    """Return the address of a database, to show."""
    return _PASSWORD.sub(r"\1", url)
