"""Run transactions on one connection, whichever database it leads to."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Generic, TypeVar

from streamingllm.errors import SnapshotError
from streamingllm.sessions.database import SqlConnection

Connection = TypeVar("Connection", bound=SqlConnection)


class SqlTransactions(ABC, Generic[Connection]):
    """Run transactions of any thread, one at a time; the part of a `Database` that all share.

    Args:
        name: of the database, in messages.
        error: base of what its driver raises.
        damage: what a read raises if the database is damaged.
    """

    connection: Connection
    _begin_writing: ClassVar[str]
    _begin_reading: ClassVar[str]

    def __init__(
        self, name: str, error: type[Exception], damage: tuple[type[Exception], ...]
    ) -> None:
        self.name = name
        self._error = error
        self._damage = damage
        self._lock = threading.RLock()
        self._is_open = False  # whether a transaction is
        self._after_commit: list[Callable[[], object]] = []

    def run(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run a statement within a transaction and return its rows."""
        return [*self.connection.execute(statement, values)]

    def after_commit(self, action: Callable[[], object]) -> None:
        """Do something once the open transaction is durable; not at all if it is not."""
        self._after_commit.append(action)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make all changes in the body durable together, or none of them.

        Raises:
            SnapshotError: the database cannot be written; it is as it was before.
        """
        with self._within(self._begin_writing):
            try:
                yield
            except self._error as error:
                raise self._unusable(error) from error

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Read one state of the database; say in one line what is wrong with it.

        Raises:
            SnapshotError: it is damaged.
        """
        with self._within(self._begin_reading):
            try:
                yield
            except self._damage as error:
                reason = " ".join(str(error).split())
                raise SnapshotError(
                    f"{self.name}: is damaged ({reason}); restore a backup"
                ) from error

    @contextmanager
    def _within(self, begin: str) -> Iterator[None]:
        """Run the body in a transaction, or in the one that is open."""
        with self._lock:
            if self._is_open:
                yield
                return
            try:
                self._begin(begin)
                self._is_open = True
                yield
                self.connection.execute("COMMIT")
                actions, self._after_commit = self._after_commit, []
                for action in actions:
                    action()
                self._committed()
            except self._error as error:
                raise self._unusable(error) from error
            finally:
                self._is_open = False
                self._after_commit = []
                self._roll_back()

    def _begin(self, statement: str) -> None:
        self.connection.execute(statement)

    @abstractmethod
    def _committed(self) -> None:
        """Do what follows a commit."""

    @abstractmethod
    def _roll_back(self) -> None:
        """Take back a transaction that is still open, if one is."""

    @abstractmethod
    def _unusable(self, error: Exception) -> SnapshotError:
        """Return an error that says that the database cannot be used."""
