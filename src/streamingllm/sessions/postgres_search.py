"""Words of messages in a PostgreSQL database."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from streamingllm.errors import InputError
from streamingllm.sessions.database import Database
from streamingllm.sessions.message_json import message_from_json

_MAX_CHARACTERS = 200_000  # a vector of words holds less than a megabyte
_IN_SESSIONS = (
    "id IN (SELECT session FROM messages JOIN search ON search.row = messages.row WHERE "
    "words @@ to_tsquery('simple', ?)"
)


class PostgresSearch:
    """Keep an index of the words of all messages within transactions; a `WordSearch`.

    Of a message of more than 200,000 characters the first are indexed.

    Args:
        database: of the sessions, whose rows of messages the index names.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, session_id: str, rows: Iterable[tuple[int, str]]) -> None:
        """Index messages of a session, each the number of its row and its JSON."""
        add = (
            "INSERT INTO search SELECT ?, owner, to_tsvector('simple', ?) FROM sessions "
            "WHERE id = ?"
        )
        for row, body in rows:
            if text := _words_of(body):
                self._database.run(add, row, text, session_id)

    def remove(self, session_id: str, rows: Iterable[tuple[int, str]]) -> None:
        """Remove messages that `add` has indexed."""
        for row, _ in rows:
            self._database.run("DELETE FROM search WHERE row = ?", row)

    def condition(self, query: str, owner: str | None) -> tuple[str, list[str]]:
        """Return a condition of SQL on sessions, and its values; see `WordSearch`."""
        words = _plain(query).split()
        if not words:
            return "TRUE", []
        quoted = ["'" + word.replace("\\", "\\\\").replace("'", "''") + "'" for word in words]
        wanted = " & ".join(quoted) + ":*"
        if owner is None:
            return f"{_IN_SESSIONS})", [wanted]
        return f"{_IN_SESSIONS} AND search.owner = ?)", [wanted, owner]


def _plain(text: str) -> str:
    """Return a text without accents, as the index has it."""
    parts = unicodedata.normalize("NFKD", text.replace("\0", " "))
    return "".join(letter for letter in parts if not unicodedata.combining(letter))


def _words_of(body: str) -> str:
    """Return the text of a message; nothing if it is damaged."""
    try:
        return _plain(message_from_json(body).text[:_MAX_CHARACTERS])
    except InputError:
        return ""
