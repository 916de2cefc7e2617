"""Define a database of sessions: statements of SQL in transactions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol


class SqlConnection(Protocol):
    """Run statements of SQL, whose parameters are question marks."""

    def execute(self, statement: str, values: Sequence[Any] = (), /) -> Iterable[Any]:
        """Run a statement and return its rows."""
        ...


class Database(Protocol):
    """Run transactions of any thread, one at a time.

    Attributes:
        words_of_json: yields `word.value` for each text of the JSON list that is its parameter.
    """

    words_of_json: str

    @property
    def name(self) -> str:
        """Name it in messages."""
        ...

    @property
    def connection(self) -> SqlConnection:
        """The connection, for use within a transaction."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...

    def run(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run a statement within a transaction and return its rows."""
        ...

    def seconds(self) -> float:
        """Return the time since 1970, the same for all processes on the database."""
        ...

    def lock(self, name: str) -> None:
        """Bar transactions that lock the same name until the end of this one."""
        ...

    def after_commit(self, action: Callable[[], object]) -> None:
        """Do something once the open transaction is durable; not at all if it is not."""
        ...

    def wipe_log(self) -> None:
        """Empty the log after the open transaction, if it holds what was deleted."""
        ...

    def transaction(self) -> AbstractContextManager[None]:
        """Make all changes in the body durable together, or none of them.

        Raises:
            SnapshotError: the database cannot be written; it is as it was before.
        """
        ...

    def reading(self) -> AbstractContextManager[None]:
        """Read one state of the database.

        Raises:
            SnapshotError: it is damaged.
        """
        ...
