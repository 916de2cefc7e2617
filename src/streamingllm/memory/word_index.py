"""The index of a memory: which pieces of a session have a word."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

import apsw
import numpy as np
import numpy.typing as npt

# The index knows words by number. Numbers belong to one session each, so that a search costs what
# its own session costs. Words themselves stand in one table only, from which they are deleted.
TABLES = """
CREATE TABLE memory_words (
    id INTEGER PRIMARY KEY,
    session INTEGER NOT NULL,
    word TEXT NOT NULL,
    num_pieces INTEGER NOT NULL,
    UNIQUE (session, word)
) STRICT;
CREATE VIRTUAL TABLE memory_index USING fts5(
    words, content='', columnsize=0, detail=none, tokenize='ascii'
);
INSERT INTO memory_index (memory_index, rank) VALUES ('secure-delete', 1);
"""

_NUMBER = "<u4"
_COUNT = """
INSERT INTO memory_words (session, word, num_pieces) VALUES (?, ?, 1)
ON CONFLICT (session, word) DO UPDATE SET num_pieces = num_pieces + 1 RETURNING id
"""
_NEWEST = """
SELECT json_group_array(rowid) FROM (
    SELECT rowid FROM memory_index WHERE memory_index MATCH ? ORDER BY rowid DESC LIMIT ?
)
"""


class WordIndex:
    """Add, remove and find rows by words, within transactions.

    Args:
        database: with the tables above.
    """

    def __init__(self, database: apsw.Connection) -> None:
        self._database = database

    def add(self, session: int, row: int, words: Sequence[str]) -> bytes:
        """Index a row; return the numbers of its words, which `remove` needs."""
        numbers = {word: self._counted(session, word) for word in dict.fromkeys(words)}
        add = "INSERT INTO memory_index (rowid, words) VALUES (?, ?)"
        self._database.execute(add, (row, _terms(numbers.values())))
        return np.array([numbers[word] for word in words], dtype=_NUMBER).tobytes()

    def remove(self, row: int, packed: bytes) -> None:
        """Remove a row, and words that no row has any more."""
        numbers = dict.fromkeys(unpacked(packed).tolist())
        remove = "INSERT INTO memory_index (memory_index, rowid, words) VALUES ('delete', ?, ?)"
        self._database.execute(remove, (row, _terms(numbers)))
        for number in numbers:
            self._database.execute(
                "UPDATE memory_words SET num_pieces = num_pieces - 1 WHERE id = ?", (number,)
            )
            self._database.execute(
                "DELETE FROM memory_words WHERE id = ? AND num_pieces = 0", (number,)
            )

    def find(self, session: int, words: Iterable[str]) -> dict[str, tuple[int, int]]:
        """Return the number of each word that is known, and how many pieces have it."""
        find = "SELECT id, num_pieces FROM memory_words WHERE session = ? AND word = ?"
        found = {}
        for word in words:
            for number, num_pieces in self._database.execute(find, (session, word)):
                found[word] = (number, num_pieces)
        return found

    def newest_rows(self, number: int, limit: int) -> npt.NDArray[np.int64]:
        """Return the rows that have a word, the newest first."""
        ((rows,),) = self._database.execute(_NEWEST, (f'"{number}"', limit))
        return np.array(json.loads(rows), dtype=np.int64)

    def _counted(self, session: int, word: str) -> int:
        ((number,),) = self._database.execute(_COUNT, (session, word))
        return int(number)


def unpacked(packed: bytes) -> npt.NDArray[np.uint32]:
    """Return the numbers of the words of rows."""
    return np.frombuffer(packed, dtype=_NUMBER)


def num_words(packed: bytes) -> int:
    """Return how many words a row has."""
    return len(packed) // np.dtype(_NUMBER).itemsize


def _terms(numbers: Iterable[int]) -> str:
    return " ".join(map(str, numbers))
