"""A memory of the sessions of a store, which puts back what left their windows."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Container, Iterable, Sequence

from streamingllm.errors import InputError
from streamingllm.memory.encoder import Encoder
from streamingllm.memory.memory import Memory
from streamingllm.memory.passages import passages, recalled_block
from streamingllm.memory.records import Recalled
from streamingllm.memory.support import Guard, Support
from streamingllm.memory.words import date_text
from streamingllm.sessions.message_json import message_from_json
from streamingllm.sessions.recall import Recall, RecalledText
from streamingllm.sessions.sqlite_store import SqliteStore
from streamingllm.sessions.transcript import Message

_BY_TOOL = "recall it with search_memory"
_BY_ASKING = "it is recalled when a message asks about it"
_HIDDEN_ROLES = ("system", "developer")  # they are pinned
_QUESTION = re.compile(
    r"\?\s*$|^\s*(?:who|whom|whose|what|when|where|which|why|how|do|does|did|is|are|was|were|can|"
    r"could|tell me|remind me)\b",
    re.IGNORECASE,
)


class SessionMemory:
    """Follow the messages of a store, and recall them; a `MessageIndex` and a `Recaller`.

    A message is appended to the memory and deleted from it in the transaction of its turn. The
    memory is in the database of the store.

    Args:
        store: of sessions; the memory becomes one of its indexes and reads what it holds already.
        encoder: see `Memory`.
    """

    def __init__(self, store: SqliteStore, encoder: Encoder | None = None) -> None:
        self.memory = Memory(store.database, encoder=encoder)
        self._guard = Guard()
        self._store = store
        self._removed_seconds: dict[str, float] = {}  # of messages removed in this transaction
        with store.transaction():
            self._read_old_sessions()
        store.indexes.append(self)

    @staticmethod
    def is_in(store: SqliteStore) -> bool:
        """Tell whether a store has a memory, which then has to follow its messages."""
        find = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'memory_sessions'"
        with store.database.reading():
            return bool(store.database.run(find))

    def add(self, session_id: str, rows: Iterable[tuple[int, str]]) -> None:
        """Append messages; see `MessageIndex`."""
        for message in _messages(rows):
            if not message.text or message.role in _HIDDEN_ROLES:
                continue
            with contextlib.suppress(InputError):  # an id that a client has used twice
                self.memory.append(
                    session_id,
                    message.role,
                    message.text,
                    message_id=message.id,
                    position=message.first,
                    speaker=message.name or "",
                    time=self._said_seconds(message.id),
                    source="session",
                )

    def remove(self, session_id: str, rows: Iterable[tuple[int, str]]) -> None:
        """Forget messages; see `MessageIndex`."""
        gone = [message.id for message in _messages(rows)]
        for message_id in gone:
            if (seconds := self.memory.seconds_of(message_id)) is not None:
                self._removed_seconds[message_id] = seconds
        self._store.database.after_commit(self._removed_seconds.clear)
        if self.memory.forget(session_id, gone) and not self.memory.messages(session_id, 1):
            self.memory.forget_session(session_id)

    def recall(
        self, session_key: str, query: str, visible: Container[int], budget_tokens: int
    ) -> Recall:
        """Return texts that a message is about; see `Recaller`.

        Up to eight passages are returned, each of neighbouring pieces. Pieces that score far below
        the best one are left out.
        """
        found = self.memory.search(session_key, query, budget_tokens, visible)
        support = Support()
        if _QUESTION.search(query):
            support = self.memory.support(session_key, query)
        asked = self.memory.words(query)
        texts = [_text(piece, self._shared(asked, piece)) for piece in passages(found)]
        return Recall(
            tuple(texts), support.unknown_words, is_not_found=self._guard.is_not_found(support)
        )

    def listed(self, texts: Sequence[RecalledText]) -> str:
        """Return texts as lines; see `Recaller`."""
        return "\n".join(
            f"{date_text(part.seconds)}, {part.speaker}: {part.text.strip()}"
            for part in sorted(texts, key=lambda part: part.position)
        )

    def with_recall(self, recall: Recall, text: str) -> str:
        """Return a message with the recalled texts before it; see `Recaller`."""
        how = _BY_TOOL if recall.has_search else _BY_ASKING
        lines = [
            f"[evicted: result of {result.tool or 'a tool'}, {result.num_tokens} tokens; {how}]"
            for result in recall.evicted_results
        ]
        if recall.texts:
            lines.append(recalled_block([self.listed(recall.texts)]).rstrip("\n"))
        return "\n".join([*lines, "", text])

    def _shared(self, asked: Sequence[str], piece: Recalled) -> tuple[str, ...]:
        """Return the words of a query that a piece has."""
        there = set(self.memory.words(f"{piece.speaker or piece.role} {piece.text}"))
        return tuple(word for word in dict.fromkeys(asked) if word in there)

    def _said_seconds(self, message_id: str) -> float | None:
        """Return when a message was said that moves within its session or is copied to another."""
        if message_id in self._removed_seconds:
            return self._removed_seconds[message_id]
        return self.memory.seconds_of(message_id)

    def _read_old_sessions(self) -> None:
        find = (
            "SELECT session, row, body FROM messages "
            "WHERE session NOT IN (SELECT id FROM memory_sessions) ORDER BY session, number"
        )
        for session_id, row, body in self._store.database.run(find):
            self.add(session_id, [(row, body)])


def _messages(rows: Iterable[tuple[int, str]]) -> list[Message]:
    """Return the messages of rows; a damaged row is none, and is found when it is read."""
    found = []
    for _, body in rows:
        with contextlib.suppress(InputError):
            found.append(message_from_json(body))
    return found


def _text(piece: Recalled, words: tuple[str, ...]) -> RecalledText:
    return RecalledText(
        piece.message_id,
        piece.position,
        piece.text,
        piece.score,
        speaker=piece.speaker or piece.role,
        seconds=piece.seconds,
        words=words,
    )
