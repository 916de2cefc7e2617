"""The last tokens of each stream of a batch."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from torch import Tensor


class TokenTail:
    """Token tail of each stream: repetition penalties read it, and a rewind feeds its end again.

    Args:
        limit: tokens of a stream that are remembered.
        streams: what is remembered of each, oldest first; none before the first tokens come.
    """

    def __init__(self, limit: int, streams: Iterable[Iterable[int]] = ()) -> None:
        self._limit = limit
        self._streams = [deque(ids, limit) for ids in streams]

    @property
    def num_streams(self) -> int:
        """Streams in the batch; 0 before `begin`."""
        return len(self._streams)

    def begin(self, num_streams: int) -> None:
        """Fix how many streams there are."""
        self._streams = [deque(maxlen=self._limit) for _ in range(num_streams)]

    def extend(self, ids: Tensor, valid: Tensor | None) -> None:
        """Remember ids [batch, seq], but not the padding, where `valid` is False."""
        fed = ids if valid is None else ids.masked_fill(~valid, -1)
        for known, new in zip(self._streams, fed.tolist(), strict=True):
            known.extend(new if valid is None else [token for token in new if token >= 0])

    def take_back(self, num_tokens: int) -> None:
        """Forget the last tokens of every stream."""
        for known in self._streams:
            for _ in range(num_tokens):
                known.pop()

    def pop_last(self) -> list[int]:
        """Forget the last token of each stream and return it; 0 of one that has none."""
        return [known.pop() if known else 0 for known in self._streams]

    def common(self) -> list[list[int]]:
        """Return the last tokens of each stream, equally many: the shortest stream's number."""
        length = min(len(known) for known in self._streams)
        return [list(known)[len(known) - length :] for known in self._streams]

    def to_lists(self) -> list[list[int]]:
        """Return all that is remembered."""
        return [list(known) for known in self._streams]

    def copy(self) -> TokenTail:
        """Return an independent copy."""
        return TokenTail(self._limit, self._streams)
