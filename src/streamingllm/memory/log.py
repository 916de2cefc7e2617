"""The log of a memory: pieces of messages, in the order of their sessions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import apsw
import numpy as np
import numpy.typing as npt

from streamingllm.errors import InputError
from streamingllm.memory.ranking import Floats, Integers, Pieces, Totals
from streamingllm.memory.records import Recalled, Said
from streamingllm.memory.vectors import TABLES as VECTOR_TABLES
from streamingllm.memory.vectors import VectorTable
from streamingllm.memory.word_index import TABLES as INDEX_TABLES
from streamingllm.memory.word_index import WordIndex, num_words, unpacked
from streamingllm.memory.words import WordReader, date_text

# A row is the number of its session and that of the piece in one, so that a session is one range.
_PIECE_BITS = 32
_TABLES = """
CREATE TABLE memory_sessions (
    row INTEGER PRIMARY KEY,
    id TEXT UNIQUE NOT NULL,
    num_pieces INTEGER NOT NULL,
    num_words INTEGER NOT NULL,
    num_numbers INTEGER NOT NULL
) STRICT;
CREATE TABLE memory_pieces (
    row INTEGER PRIMARY KEY,
    message TEXT NOT NULL,
    position INTEGER NOT NULL,
    text TEXT NOT NULL,
    role TEXT NOT NULL,
    speaker TEXT NOT NULL,
    seconds REAL NOT NULL,
    source TEXT NOT NULL,
    facts TEXT NOT NULL,
    words BLOB NOT NULL
) STRICT;
CREATE INDEX memory_pieces_by_message ON memory_pieces (message);
"""
_FIELDS = "message, position, text, role, speaker, seconds, source, facts"


class MemoryLog:
    """Append, read and forget pieces, within transactions.

    Args:
        database: of sessions; its tables are created.
    """

    def __init__(self, database: apsw.Connection) -> None:
        self._database = database
        find = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'memory_sessions'"
        if not [*database.execute(find)]:
            database.execute(_TABLES)
            database.execute(INDEX_TABLES)
            database.execute(VECTOR_TABLES)
        self.index = WordIndex(database)
        self.reader = WordReader(database)
        self.vectors = VectorTable(database)

    def session(self, session_id: str) -> tuple[int, Totals] | None:
        """Return the number of a session and its totals; None if it is not there."""
        find = "SELECT row, num_pieces, num_words, num_numbers FROM memory_sessions WHERE id = ?"
        for row, *totals in self._database.execute(find, (session_id,)):
            return row, Totals(*totals)
        return None

    def append(
        self, said: Said, pieces: Sequence[str], vectors: npt.NDArray[np.float32] | None
    ) -> None:
        """Append a message.

        Args:
            said: the message.
            pieces: of its text.
            vectors: of the pieces, if there is an encoder.

        Raises:
            InputError: the session has a message of that id.
        """
        session, totals = self.session(said.session_id) or self._new_session(said.session_id)
        if self._rows_of(session, said.message_id):
            raise InputError(
                f"message_id={said.message_id!r} is in session_id={said.session_id!r} already; "
                "forget it first"
            )
        number = totals.num_numbers
        position = number if said.position is None else said.position
        around = (said.role, said.speaker, said.seconds, said.source, json.dumps(dict(said.facts)))
        heading = self.reader.words(f"{date_text(said.seconds)} {said.speaker or said.role}")
        total = 0
        for at, text in enumerate(pieces, start=number):
            row = session << _PIECE_BITS | at
            words = heading + self.reader.words(text)
            packed = self.index.add(session, row, words)
            total += len(words)
            self._database.execute(
                "INSERT INTO memory_pieces VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (row, said.message_id, position, _storable(text), *around, packed),
            )
            if vectors is not None:
                self.vectors.put(row, vectors[at - number])
        self._count(session, len(pieces), total, len(pieces))

    def forget(self, session_id: str, message_id: str) -> bool:
        """Delete a message; tell whether it was there."""
        if (known := self.session(session_id)) is None:
            return False
        rows = self._rows_of(known[0], message_id)
        self._delete(known[0], rows)
        return bool(rows)

    def forget_from(self, session_id: str, number: int) -> None:
        """Delete the pieces of a session from a number on."""
        if (known := self.session(session_id)) is None:
            return
        first, stop = self._range(known[0])
        find = "SELECT row FROM memory_pieces WHERE row >= ? AND row < ?"
        self._delete(
            known[0], [row for (row,) in self._database.execute(find, (first + number, stop))]
        )

    def drop_session(self, session_id: str) -> None:
        """Delete a session that has no pieces."""
        self._database.execute("DELETE FROM memory_sessions WHERE id = ?", (session_id,))

    def pieces(self, session_id: str, last: int | None = None) -> list[Recalled]:
        """Return the pieces of a session in their order: all, or the last ones."""
        if (known := self.session(session_id)) is None:
            return []
        rows = self._database.execute(
            f"SELECT row, {_FIELDS} FROM memory_pieces WHERE row >= ? AND row < ? "
            "ORDER BY row DESC LIMIT ?",
            (*self._range(known[0]), -1 if last is None else last),
        )
        return [_recalled(row, fields) for row, *fields in rows][::-1]

    def words(self, session: int, numbers: Integers) -> Pieces:
        """Return the words of those pieces that are there."""
        rows = json.dumps(((session << _PIECE_BITS) + numbers).tolist())
        found = [
            *self._database.execute(
                "SELECT row, position, words FROM memory_pieces "
                "WHERE row IN (SELECT value FROM json_each(?)) ORDER BY row",
                (rows,),
            )
        ]
        return Pieces(
            numbers=self.numbers(np.array([row for row, _, _ in found], dtype=np.int64)),
            positions=[position for _, position, _ in found],
            lengths=np.array([num_words(packed) for *_, packed in found], dtype=np.int64),
            words=unpacked(b"".join(packed for *_, packed in found)),
        )

    def similarities(
        self, session: int, numbers: Integers, vector: npt.NDArray[np.float32]
    ) -> Floats:
        """Return the similarity of pieces, in order, to a vector."""
        return self.vectors.similarities((session << _PIECE_BITS) + numbers, vector)

    def recalled(self, session: int, number: int, score: float) -> Recalled:
        """Return a piece that is there with the score of a search."""
        row = session << _PIECE_BITS | number
        find = f"SELECT {_FIELDS} FROM memory_pieces WHERE row = ?"
        (fields,) = self._database.execute(find, (row,))
        return _recalled(row, fields, score)

    @staticmethod
    def numbers(rows: Integers) -> Integers:
        """Return the numbers of the pieces of rows."""
        return rows & ((1 << _PIECE_BITS) - 1)

    @staticmethod
    def _range(session: int) -> tuple[int, int]:
        return session << _PIECE_BITS, (session + 1) << _PIECE_BITS

    def _new_session(self, session_id: str) -> tuple[int, Totals]:
        add = "INSERT INTO memory_sessions (id, num_pieces, num_words, num_numbers) "
        ((row,),) = self._database.execute(add + "VALUES (?, 0, 0, 0) RETURNING row", (session_id,))
        return row, Totals(0, 0, 0)

    def seconds_of(self, message_id: str) -> float | None:
        """Return when a message of this id was said, in whatever session; None if there is none."""
        find = "SELECT seconds FROM memory_pieces WHERE message = ? LIMIT 1"
        for (seconds,) in self._database.execute(find, (message_id,)):
            return float(seconds)
        return None

    def _rows_of(self, session: int, message_id: str) -> list[int]:
        find = "SELECT row FROM memory_pieces WHERE message = ? AND row >= ? AND row < ?"
        found = self._database.execute(find, (message_id, *self._range(session)))
        return [row for (row,) in found]

    def _delete(self, session: int, rows: Sequence[int]) -> None:
        total = 0
        for row in rows:
            ((packed,),) = self._database.execute(
                "DELETE FROM memory_pieces WHERE row = ? RETURNING words", (row,)
            )
            self.index.remove(row, packed)
            self.vectors.delete(row)
            total += num_words(packed)
        self._count(session, -len(rows), -total, 0)

    def _count(self, session: int, pieces: int, words: int, numbers: int) -> None:
        self._database.execute(
            "UPDATE memory_sessions SET num_pieces = num_pieces + ?, num_words = num_words + ?, "
            "num_numbers = num_numbers + ? WHERE row = ?",
            (pieces, words, numbers, session),
        )


def _recalled(row: int, fields: Sequence[Any], score: float = 0.0) -> Recalled:
    message_id, position, text, role, speaker, seconds, source, facts = fields
    return Recalled(
        message_id,
        position,
        text,
        score,
        role,
        speaker,
        seconds,
        source,
        row & ((1 << _PIECE_BITS) - 1),
        json.loads(facts),
    )


def _storable(text: str) -> str:
    """Return a text that SQLite can hold: half a surrogate pair becomes a question mark."""
    return text.encode(errors="replace").decode()
