"""How much of a prompt is read between two tokens of those who write."""

from __future__ import annotations

SMALLEST_CHUNK = 16

_NEW_SHARE = 0.25  # of a fresh measurement in the running mean
_MARGIN = 0.8  # single steps scatter around the mean
_FADE = 0.99


class ChunkSizer:
    """Size the chunks of prompts so that they hardly hold up the streams that write.

    The sizes are `chunk_size` halved until it is about 16. What each costs is measured as it is
    used; a larger one is tried once twice the cost of the one before would be allowed.

    Args:
        chunk_size: the largest chunk.
        max_stall: how many times as long as a decode step alone a step with a chunk may take.
    """

    def __init__(self, chunk_size: int, max_stall: float) -> None:
        self._sizes = [chunk_size]
        while self._sizes[0] >= 2 * SMALLEST_CHUNK:
            self._sizes.insert(0, self._sizes[0] // 2)
        self._allowed_share = (max_stall - 1.0) * _MARGIN
        self._decode_seconds: float | None = None
        self._chunk_seconds: dict[int, float] = {}

    @property
    def largest(self) -> int:
        """What is read at once while nobody writes."""
        return self._sizes[-1]

    @property
    def smallest(self) -> int:
        """What is read at once where there is no choice."""
        return self._sizes[0]

    def size(self) -> int:
        """Return the largest chunk that fits beside a decode step, 0 if none does."""
        allowed = (self._decode_seconds or 0.0) * self._allowed_share
        best, cost = 0, 0.0
        for size in self._sizes:
            known = self._chunk_seconds.get(size)
            cost = 2 * cost if known is None else known
            if cost > allowed:
                break
            best = size
            if known is None:
                break
        if best == 0:
            # So that an estimate that an accident spoilt is not believed for ever.
            self._chunk_seconds[self.smallest] *= _FADE
        return best

    def decoded(self, seconds: float) -> None:
        """Take note of what a decode step took."""
        self._decode_seconds = _mean(self._decode_seconds, seconds)

    def read(self, num_tokens: int, seconds: float) -> None:
        """Take note of what a chunk took; the rest of a prompt, of any size, says little."""
        if num_tokens in self._sizes:
            self._chunk_seconds[num_tokens] = _mean(self._chunk_seconds.get(num_tokens), seconds)


def _mean(old: float | None, new: float) -> float:
    return new if old is None else old + _NEW_SHARE * (new - old)
