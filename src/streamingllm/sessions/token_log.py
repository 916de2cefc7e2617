"""Ids of all tokens that a session fed, four bytes each."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator

from streamingllm.errors import InputError
from streamingllm.sessions.shared_log import SharedLog

BYTES_PER_TOKEN = 4
_BLOCK_TOKENS = 1024


class TokenLog:
    """Append token ids, read them by stream position, fork in constant time.

    A fork shares the past: it costs no copy, and what one log appends or truncates afterwards the
    other does not see.

    Args:
        ids: the first token ids, each 0 to 2**32 - 1.
    """

    def __init__(self, ids: Iterable[int] = ()) -> None:
        self._log: SharedLog[int] = SharedLog(_new_ids)
        self.extend(ids)

    def __len__(self) -> int:
        return len(self._log)

    def __iter__(self) -> Iterator[int]:
        for first in range(0, len(self), _BLOCK_TOKENS):
            yield from self[first : first + _BLOCK_TOKENS]

    def __getitem__(self, positions: slice) -> array[int]:
        """Return a copy of the ids at a slice of stream positions, without a step."""
        first, stop, step = positions.indices(len(self))
        if step != 1:
            raise InputError(f"step={step} is not 1; slice a token log without a step")
        ids = self._log.slice(first, max(first, stop))
        assert isinstance(ids, array)
        return ids

    def at(self, position: int) -> int:
        """Return the id at a stream position; a negative one counts from the end."""
        return self._log[position]

    def append(self, token_id: int) -> None:
        """Append one token id."""
        self.extend((token_id,))

    def extend(self, ids: Iterable[int]) -> None:
        """Append token ids, all or none.

        Raises:
            InputError: an id does not fit into 32 bits.
        """
        try:
            self._log.extend(array("I", ids))
        except OverflowError as error:
            raise InputError(f"ids contains no 32-bit token id ({error}); use ids >= 0") from error

    def truncate(self, length: int) -> None:
        """Keep the first `length` ids.

        Raises:
            InputError: the log is shorter than that.
        """
        self._log.truncate(length)

    def fork(self) -> TokenLog:
        """Return a log with the same past, in constant time."""
        other = TokenLog()
        self._log.share_with(other._log)
        return other

    def chunks(self, first: int, max_tokens: int) -> Iterator[array[int]]:
        """Yield copies of the ids from `first` on, `max_tokens` at most at a time."""
        for start in range(first, len(self), max_tokens):
            yield self[start : start + max_tokens]


def ids_to_bytes(ids: Iterable[int]) -> bytes:
    """Return token ids as little-endian 32-bit integers."""
    packed = array("I", ids)
    if _IS_BIG_ENDIAN:
        packed.byteswap()
    return packed.tobytes()


def ids_from_bytes(content: bytes) -> array[int]:
    """Return what `ids_to_bytes` packed.

    Raises:
        InputError: the length is no multiple of four bytes.
    """
    if len(content) % BYTES_PER_TOKEN:
        raise InputError(f"content has {len(content)} bytes; must be a multiple of 4")
    ids = array("I", content)
    if _IS_BIG_ENDIAN:
        ids.byteswap()
    return ids


def _new_ids() -> array[int]:
    return array("I")


_IS_BIG_ENDIAN = array("I", [1]).tobytes()[0] == 0
