"""Window starts under eviction by whole turns, or by blocks of tokens."""

from __future__ import annotations

from bisect import bisect_left
from typing import TypeVar

import torch
from torch import Tensor

from streamingllm.config import StreamConfig

_Number = TypeVar("_Number", int, Tensor)


class TurnStarts:
    """Remember where the turns of one stream begin and say where a window may begin.

    The window of the token at stream position t begins at the first turn that starts within
    [t - m + 1, t - m // 2]. It begins at t - m + 1 if none does. So whole turns leave the window,
    it never exceeds m tokens, and it never falls below half of m. A turn longer than that is
    evicted token by token. The rule depends on t and on the turns that have begun by then, and on
    nothing else. So the passes of a stream may be split anyhow, and evicted tokens stay evicted.

    Args:
        window_size: most tokens of a window (m).
        starts: stream positions of the first tokens of turns, ascending.
    """

    def __init__(self, window_size: int, starts: list[int] | None = None) -> None:
        self._window_size = window_size
        self._starts = starts or []

    def begin(self, position: int) -> None:
        """Remember that a turn begins at a stream position, the next one to be fed."""
        if not self._starts or self._starts[-1] < position:
            self._starts.append(position)

    def first_visible(self, position: int) -> int:
        """Return the stream position at which the window of the token at `position` begins."""
        oldest = position - self._window_size + 1
        if oldest <= 0:
            return 0
        index = bisect_left(self._starts, oldest)
        is_whole = index < len(self._starts) and self._starts[index] <= self._latest(position)
        return self._starts[index] if is_whole else oldest

    def first_visible_of(self, positions: Tensor) -> Tensor:
        """Return the same for many stream positions, int64, of any shape."""
        oldest = positions - self._window_size + 1
        known = torch.tensor([*self._starts, torch.iinfo(torch.int64).max], device=oldest.device)
        turn = known[torch.searchsorted(known, oldest.contiguous()).clamp(max=len(self._starts))]
        is_whole = (turn <= positions - self._window_size // 2) & (oldest > 0)
        return torch.where(is_whole, turn, oldest.clamp(min=0))

    def _latest(self, position: int) -> int:
        return position - self._window_size // 2

    def forget(self, oldest_needed: int, num_seen_tokens: int) -> None:
        """Drop turns that begin before `oldest_needed` or after the stream's end."""
        first = bisect_left(self._starts, oldest_needed)
        last = bisect_left(self._starts, num_seen_tokens + 1)
        self._starts = self._starts[first:last]

    def copy(self) -> TurnStarts:
        """Return an independent copy."""
        return TurnStarts(self._window_size, [*self._starts])

    def to_list(self) -> list[int]:
        """Return the remembered stream positions."""
        return [*self._starts]


class BlockStarts(TurnStarts):
    """Let a window begin at multiples of a number of tokens only, whatever turns begin.

    The window of the token at stream position t begins at the first multiple within
    [t - m + 1, t]. It holds more than m - grain tokens, as a paged cache does that frees a block
    once no token of it is in a window of m - grain + 1.

    Args:
        window_size: most tokens of a window (m).
        grain: tokens that leave together, at most m.
    """

    def __init__(self, window_size: int, grain: int) -> None:
        super().__init__(window_size)
        self._grain = grain

    def begin(self, position: int) -> None:
        """Do nothing."""

    def first_visible(self, position: int) -> int:
        """Return the stream position at which the window of the token at `position` begins."""
        return self._rounded_up(max(0, position - self._window_size + 1))

    def first_visible_of(self, positions: Tensor) -> Tensor:
        """Return the same for many stream positions, int64, of any shape."""
        return self._rounded_up((positions - self._window_size + 1).clamp(min=0))

    def _rounded_up(self, oldest: _Number) -> _Number:
        return -(-oldest // self._grain) * self._grain

    def copy(self) -> BlockStarts:
        """Return this, which nothing changes."""
        return self


def window_starts(config: StreamConfig, turns: list[int] | None = None) -> TurnStarts | None:
    """Return what says where the windows of a stream begin; None where they begin anywhere.

    Args:
        config: of the stream.
        turns: stream positions of the first tokens of its turns so far.
    """
    if config.eviction == "turn":
        return TurnStarts(config.window_size, turns)
    grain = config.eviction_grain
    return BlockStarts(config.window_size, grain) if grain > 1 else None
