"""Find sessions by words of their messages."""

from __future__ import annotations

from collections.abc import Iterable

import apsw

from streamingllm.errors import InputError
from streamingllm.sessions.message_json import message_from_json

# The index holds no text of its own. What is deleted leaves the file at once.
_CREATE = """
CREATE VIRTUAL TABLE search USING fts5(
    text, content='', columnsize=0, tokenize='unicode61 remove_diacritics 2'
);
INSERT INTO search (search, rank) VALUES ('secure-delete', 1);
"""
_IN_SESSIONS = (
    "id IN (SELECT session FROM messages WHERE row IN "
    "(SELECT rowid FROM search WHERE search MATCH ?))"
)


class SessionSearch:
    """Keep an index of the words of all messages within transactions.

    Args:
        database: of the sessions, whose rows of messages the index names.
    """

    def __init__(self, database: apsw.Connection) -> None:
        self._database = database
        find = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'search'"
        self.is_there = bool([*database.execute(find)])

    def create(self) -> None:
        """Index all messages, if there is no index yet."""
        if self.is_there:
            return
        with self._database:
            self._database.execute(_CREATE)
            for row, body in self._database.execute("SELECT row, body FROM messages"):
                self._write(row, body)
        self.is_there = True

    def add(self, rows: Iterable[tuple[int, str]]) -> None:
        """Index messages, each the number of its row and its JSON."""
        if self.is_there:
            for row, body in rows:
                self._write(row, body)

    def remove(self, rows: Iterable[tuple[int, str]]) -> None:
        """Remove messages that `add` has indexed."""
        if not self.is_there:
            return
        for row, body in rows:
            text = _words_of(body)
            if text:
                self._database.execute(
                    "INSERT INTO search (search, rowid, text) VALUES ('delete', ?, ?)", (row, text)
                )

    def condition(self, query: str) -> tuple[str, list[str]]:
        """Return a condition of SQL on sessions, and its values.

        It holds for sessions with a message that has all words of the query. The last word may be
        the beginning of one.

        Raises:
            InputError: the sessions are not indexed.
        """
        if not self.is_there:
            raise InputError("query: the store has no index; open it with is_searchable=True")
        words = [word.replace('"', '""') for word in query.replace("\0", " ").split()]
        if not words:
            return "1", []
        # Within quotation marks nothing is syntax.
        return _IN_SESSIONS, [" ".join(f'"{word}"' for word in words) + "*"]

    def _write(self, row: int, body: str) -> None:
        text = _words_of(body)
        if text:
            self._database.execute("INSERT INTO search (rowid, text) VALUES (?, ?)", (row, text))


def _words_of(body: str) -> str:
    """Return the text of a message; nothing if it is damaged."""
    try:
        return message_from_json(body).text
    except InputError:
        return ""
