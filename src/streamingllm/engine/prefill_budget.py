"""How much of a prompt is read between two tokens of those who write."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

SMALLEST_CHUNK = 16
ALONG = (1, 2, 4, 8, 16, 32)

_NEW_SHARE = 0.25  # of a fresh measurement in the running mean
_MARGIN = 0.8  # single steps scatter around the mean
_FADE = 0.995
_TRUSTED_STEPS = 32


class Reading(NamedTuple):
    """What a step does for a prompt: a pass of its own, or tokens along with those who write."""

    how: Literal["chunk", "along"]
    num_tokens: int


class Ladder:
    """Find the largest of some sizes that fits into a time, by measuring what each takes.

    A larger size is tried when what the two before it took lets expect that it fits.

    Args:
        sizes: ascending, each about twice the one before.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = sizes
        self._seconds: dict[int, float] = {}

    def largest(self, allowed_seconds: float) -> int:
        """Return the largest size that fits, 0 if none does."""
        best, seconds, growth = 0, 0.0, 0.0
        for size in self.sizes:
            is_known = size in self._seconds
            expected = self._seconds[size] if is_known else seconds + 2 * growth
            if expected > allowed_seconds:
                if is_known:  # an accident that spoilt a measurement is not believed for ever
                    self._seconds[size] *= _FADE
                break
            best = size
            if not is_known:
                break
            growth = max(0.0, expected - seconds) if seconds else expected / 2
            seconds = expected
        return best

    def is_known(self, size: int) -> bool:
        """Whether a size has been measured, or is none of these."""
        return size in self._seconds or size not in self.sizes

    def measured(self, size: int, seconds: float) -> None:
        """Take note of what a size took; others, as the rest of a prompt may have, say little."""
        if size in self.sizes:
            self._seconds[size] = _mean(self._seconds.get(size), max(0.0, seconds))


class Pace:
    """Read prompts as fast as those who write allow.

    While others write, either some tokens of a prompt go along in their step, or a chunk has a pass
    of its own: whichever brings more tokens in the time there is.

    Args:
        chunk_size: the largest chunk, and what is read at once while nobody writes.
        max_stall: how many times as long as without it a step may take while a prompt is read.
        most_along: tokens of a prompt that one step can take.
    """

    def __init__(self, chunk_size: int, max_stall: float, most_along: int = ALONG[-1]) -> None:
        sizes = [chunk_size]
        while sizes[0] >= 2 * SMALLEST_CHUNK:
            sizes.insert(0, sizes[0] // 2)
        along = [size for size in ALONG if size <= most_along]
        self._ladders = {"along": Ladder(along), "chunk": Ladder(sizes)}
        self._allowed_share = (max_stall - 1.0) * _MARGIN
        self._alone: dict[int, float] = {}
        self._steps_since_alone = 0

    def next(self, num_writing: int, *, can_go_along: bool) -> Reading:
        """Say what the next step reads of a prompt; now and then nothing, to measure that.

        Args:
            num_writing: streams that write.
            can_go_along: whether the prompt's stream can step together with them.
        """
        along, chunks = self._ladders["along"], self._ladders["chunk"]
        if num_writing == 0:
            return Reading("chunk", chunks.sizes[-1])
        if num_writing not in self._alone or self._steps_since_alone >= _TRUSTED_STEPS:
            return Reading("along", 0)
        allowed = self._alone[num_writing] * self._allowed_share
        chunk = chunks.largest(allowed)
        if not can_go_along:
            return Reading("chunk", chunk or chunks.sizes[0])
        num_along = along.largest(allowed) or along.sizes[0]
        if along.is_known(num_along) and (chunk > num_along or not chunks.is_known(chunk)):
            return Reading("chunk", chunk)
        return Reading("along", num_along)

    def stepped(self, num_writing: int, seconds: float, num_along: int = 0) -> None:
        """Take note of what a step took, with so many tokens of a prompt along."""
        if num_along == 0:
            self._alone[num_writing] = _mean(self._alone.get(num_writing), seconds)
            self._steps_since_alone = 0
        else:
            self._steps_since_alone += 1
            extra = seconds - self._alone.get(num_writing, 0.0)
            self._ladders["along"].measured(num_along, extra)

    def read(self, num_tokens: int, seconds: float) -> None:
        """Take note of what a chunk took."""
        self._ladders["chunk"].measured(num_tokens, seconds)


def _mean(old: float | None, new: float) -> float:
    return new if old is None else old + _NEW_SHARE * (new - old)
