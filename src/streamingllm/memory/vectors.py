"""Vectors of pieces, in eight bits a dimension."""

from __future__ import annotations

import json

import apsw
import numpy as np
import numpy.typing as npt

from streamingllm.errors import ConfigError

TABLES = """
CREATE TABLE memory_vectors (row INTEGER PRIMARY KEY, vector BLOB NOT NULL) STRICT;
CREATE TABLE memory_encoder (name TEXT NOT NULL) STRICT;
"""
_SCALE = 127.0

Floats = npt.NDArray[np.float64]


class VectorTable:
    """Keep the vectors of one encoder, within transactions.

    Args:
        database: with the tables above.
    """

    def __init__(self, database: apsw.Connection) -> None:
        self._database = database

    def check_encoder(self, name: str) -> None:
        """Note the encoder of all vectors.

        Raises:
            ConfigError: the vectors are another one's.
        """
        for (known,) in self._database.execute("SELECT name FROM memory_encoder"):
            if known != name:
                raise ConfigError(
                    f"encoder={name!r} is not {known!r}, whose vectors the memory holds; open it "
                    "with that one"
                )
            return
        self._database.execute("INSERT INTO memory_encoder VALUES (?)", (name,))

    def put(self, row: int, vector: npt.NDArray[np.float32]) -> None:
        """Store the vector of a row, whose length is 1."""
        packed = np.rint(vector * _SCALE).astype(np.int8).tobytes()
        self._database.execute("INSERT INTO memory_vectors VALUES (?, ?)", (row, packed))

    def delete(self, row: int) -> None:
        """Delete the vector of a row, if there is one."""
        self._database.execute("DELETE FROM memory_vectors WHERE row = ?", (row,))

    def similarities(self, rows: npt.NDArray[np.int64], vector: npt.NDArray[np.float32]) -> Floats:
        """Return the cosine of each row's vector with another; the mean for rows without one."""
        found = [
            *self._database.execute(
                "SELECT row, vector FROM memory_vectors "
                "WHERE row IN (SELECT value FROM json_each(?)) ORDER BY row",
                (json.dumps(rows.tolist()),),
            )
        ]
        if not found:
            return np.zeros(len(rows))
        known = np.frombuffer(b"".join(packed for _, packed in found), dtype=np.int8)
        cosines = known.reshape(len(found), -1).astype(np.float32) @ vector / _SCALE
        similar = np.full(len(rows), float(cosines.mean()))
        similar[np.searchsorted(rows, [row for row, _ in found])] = cosines
        return similar
