"""A memory of sessions: append what was said, find it again, forget it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Container, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from streamingllm.errors import InputError
from streamingllm.memory.encoder import Encoder
from streamingllm.memory.log import MemoryLog
from streamingllm.memory.pieces import pieces_of
from streamingllm.memory.records import Recalled, Said
from streamingllm.memory.search import MemorySearch
from streamingllm.memory.selection import select
from streamingllm.memory.settings import MemorySettings
from streamingllm.memory.support import Support
from streamingllm.sessions.recall import estimated_tokens
from streamingllm.sessions.sqlite_database import SqliteDatabase


class Memory:
    """Keep what sessions say, and find what a question is about.

    Every message is one row or, if it is long, several. An index of FTS5 holds their words, stemmed
    and without stop words, with the date and the speaker. A search scores overlapping windows of
    neighbouring pieces by BM25. Its cost does not depend on the age of the session.

    Methods may be called from any thread; each is one transaction.

    Args:
        path: of a SQLite database, which may be that of a session store; missing ones are created.
            A `SqliteDatabase` that is open is used as it is.
        settings: sizes and bounds.
        count_tokens: counts the tokens of a text for a budget; None takes four bytes for one token.
        encoder: of texts; the similarity of a piece to the query is then added to its score.

    Raises:
        ConfigError: the file holds vectors of another encoder.
        SnapshotError: the file cannot be opened, or is no database of this release.
    """

    def __init__(
        self,
        path: str | Path | SqliteDatabase,
        settings: MemorySettings | None = None,
        *,
        count_tokens: Callable[[str], int] | None = None,
        encoder: Encoder | None = None,
    ) -> None:
        self.settings = settings or MemorySettings()
        self._owns = not isinstance(path, SqliteDatabase)
        self._database = (
            path
            if isinstance(path, SqliteDatabase)
            else SqliteDatabase(Path(path), "create", "wal")
        )
        self._count_tokens = count_tokens or estimated_tokens
        self._encoder = encoder
        try:
            with self._database.transaction():
                self._log = MemoryLog(self._database.connection)
                if encoder is not None:
                    self._log.vectors.check_encoder(encoder.name)
        except BaseException:
            self.close()
            raise
        self._search = MemorySearch(self._log, self.settings)

    def __enter__(self) -> Memory:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the database, if this memory has opened it."""
        if self._owns:
            self._database.close()

    def transaction(self) -> AbstractContextManager[None]:
        """Make all appends in the body durable together, which costs one sync of the disk."""
        return self._database.transaction()

    def append(self, session_id: str, role: str, text: str, **meta: Any) -> str:
        """Append a message to a session and return its id.

        Args:
            session_id: any text; a new one begins a session.
            role: of the speaker, such as "user".
            text: of the message.
            meta: `message_id`, unique in its session; `position`, its first stream position, by
                default the number of its first piece; `speaker`, a name; `time`, seconds since 1970
                or a datetime, by default now; `source`. Others are JSON-able facts that come back
                when the message is recalled.

        Raises:
            InputError: a value has the wrong type, or the session has a message of that id.
        """
        said = _said(session_id, role, text, meta)
        pieces = pieces_of(said.text, self.settings.piece_characters)
        vectors = None
        if self._encoder is not None:
            who = said.speaker or said.role
            vectors = self._encoder.encode([f"{who}: {piece}" for piece in pieces])
        with self._database.transaction():
            self._log.append(said, pieces, vectors)
        return said.message_id

    def search(
        self,
        session_id: str,
        query: str,
        budget_tokens: int = 1000,
        exclude_positions: Container[int] = (),
    ) -> list[Recalled]:
        """Return pieces of messages that a query is about, the best first.

        Args:
            session_id: whose messages are searched; one that is not there has none.
            query: any text; nothing in it is syntax.
            budget_tokens: the texts of all pieces together have no more tokens.
            exclude_positions: stream positions of messages that are not returned, such as the
                `range` that is still visible.

        Raises:
            InputError: the budget is negative.
        """
        if isinstance(budget_tokens, bool) or budget_tokens < 0:
            raise InputError(f"budget_tokens={budget_tokens!r} is negative; choose 0 or more")
        vector = None if self._encoder is None else self._encoder.encode([query])[0]
        with self._database.reading():
            found = self._search.find(session_id, query, exclude_positions, vector)
            return select(found, budget_tokens, self._count_tokens)

    def unknown_words(self, session_id: str, query: str) -> list[str]:
        """Return words of a query that nobody has said in a session, stemmed, without stop words.

        A question about something that was never said has some.
        """
        with self._database.reading():
            return self._search.unknown_words(session_id, query)

    def support(self, session_id: str, question: str) -> Support:
        """Return how far a session supports a question; a `Guard` decides by it."""
        vector = None if self._encoder is None else self._encoder.encode([question])[0]
        with self._database.reading():
            return self._search.support(session_id, question, vector)

    def words(self, text: str) -> list[str]:
        """Return the words of a text as the index knows them: stemmed, without stop words."""
        with self._database.reading():
            return self._log.reader.words(text)

    def forget(self, session_id: str, message_ids: Iterable[str]) -> int:
        """Delete messages: their rows, their words in the index and what the log still holds.

        Returns:
            how many messages there were of these ids.
        """
        with self._database.transaction():
            num_forgotten = sum(
                self._log.forget(session_id, message_id) for message_id in set(message_ids)
            )
            self._database.wipe_log()
        return num_forgotten

    def forget_session(self, session_id: str) -> None:
        """Delete all messages of a session; see `forget`."""
        with self._database.transaction():
            self._log.forget_from(session_id, 0)
            self._log.drop_session(session_id)
            self._database.wipe_log()

    def seconds_of(self, message_id: str) -> float | None:
        """Return when a message of this id was said, in whatever session; None if there is none."""
        with self._database.reading():
            return self._log.seconds_of(message_id)

    def messages(self, session_id: str, last: int | None = None) -> Sequence[Recalled]:
        """Return pieces of a session in their order, scored 0: all, or the last ones."""
        with self._database.reading():
            return self._log.pieces(session_id, last)


def _said(session_id: str, role: str, text: str, meta: dict[str, Any]) -> Said:
    facts = dict(meta)
    said_at = facts.pop("time", None)
    if isinstance(said_at, datetime):
        said_at = said_at.timestamp()
    position = facts.pop("position", None)
    said = Said(
        session_id=session_id,
        role=role,
        text=text,
        message_id=facts.pop("message_id", None) or f"msg_{uuid4().hex}",
        position=position,
        speaker=facts.pop("speaker", ""),
        seconds=time.time() if said_at is None else said_at,
        source=facts.pop("source", ""),
    )
    for name in ("session_id", "role", "text", "message_id", "speaker", "source"):
        if not isinstance(value := getattr(said, name), str):
            raise InputError(f"{name}={value!r} is no text; send a string")
    if position is not None and (isinstance(position, bool) or not isinstance(position, int)):
        raise InputError(f"position={position!r} is no integer; send a stream position")
    if isinstance(said.seconds, bool) or not isinstance(said.seconds, int | float):
        raise InputError(f"time={said_at!r} is no time; send seconds since 1970 or a datetime")
    try:
        json.dumps(facts)
    except (TypeError, ValueError) as error:
        raise InputError(f"meta={facts!r} is no JSON ({error}); send JSON-able facts") from error
    return replace(said, seconds=float(said.seconds), facts=facts)
