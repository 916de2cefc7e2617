"""Find sessions by words of their messages."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

import apsw

from streamingllm.errors import InputError
from streamingllm.sessions.message_json import message_from_json

# The index holds no text of its own. What is deleted leaves the file at once.
_CREATE = """
CREATE VIRTUAL TABLE search USING fts5(
    owner, text, content='', columnsize=0, tokenize='unicode61 remove_diacritics 2'
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
        self.is_there = True
        with self._database:
            self._database.execute(_CREATE)
            for (session_id,) in self._database.execute("SELECT id FROM sessions"):
                find = "SELECT row, body FROM messages WHERE session = ?"
                self.add(session_id, self._database.execute(find, (session_id,)))

    def add(self, session_id: str, rows: Iterable[tuple[int, str]]) -> None:
        """Index messages of a session, each the number of its row and its JSON."""
        self._write("INSERT INTO search (rowid, owner, text) VALUES (?, ?, ?)", session_id, rows)

    def remove(self, session_id: str, rows: Iterable[tuple[int, str]]) -> None:
        """Remove messages that `add` has indexed; their session is still there."""
        remove = "INSERT INTO search (search, rowid, owner, text) VALUES ('delete', ?, ?, ?)"
        self._write(remove, session_id, rows)

    def condition(self, query: str, owner: str | None) -> tuple[str, list[str]]:
        """Return a condition of SQL on sessions, and its values.

        It holds for sessions with a message that has all words of the query. The last word may be
        the beginning of one.

        Args:
            query: words.
            owner: of the sessions; None for all. Messages of others cost no time.

        Raises:
            InputError: the sessions are not indexed.
        """
        if not self.is_there:
            raise InputError("query: the store has no index; open it with is_searchable=True")
        words = [word.replace('"', '""') for word in query.replace("\0", " ").split()]
        if not words:
            return "TRUE", []
        # Within quotation marks nothing is syntax.
        wanted = "text : (" + " ".join(f'"{word}"' for word in words) + "*)"
        if owner is not None:
            wanted = f'owner : "{_term_of(owner)}" AND {wanted}'
        return _IN_SESSIONS, [wanted]

    def _write(self, statement: str, session_id: str, rows: Iterable[tuple[int, str]]) -> None:
        if not self.is_there:
            return
        find = "SELECT owner FROM sessions WHERE id = ?"
        ((owner,),) = self._database.execute(find, (session_id,))
        for row, body in rows:
            if text := _words_of(body):
                self._database.execute(statement, (row, _term_of(owner), text))


def _term_of(owner: str) -> str:
    """Return one word that stands for an owner."""
    return blake2b(owner.encode(errors="surrogatepass"), digest_size=8).hexdigest()


def _words_of(body: str) -> str:
    """Return the text of a message; nothing if it is damaged."""
    try:
        return message_from_json(body).text
    except InputError:
        return ""
