"""Layout of the entries of each layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from streamingllm.config import StreamConfig


@dataclass(frozen=True)
class RingGeometry:
    """Layout of one layer's entries.

    Args:
        num_sink_tokens: entries 0..n-1 hold the sinks.
        window_size: entries n..n+m-1 hold stream position t at n + t mod m. Buffers may have more
            entries, which are not used.
        undo_size: overwritten entries that are held aside, so that a stream can go back.
    """

    num_sink_tokens: int
    window_size: int
    undo_size: int

    @property
    def num_entries(self) -> int:
        """Entries held per stream: n + m."""
        return self.num_sink_tokens + self.window_size


def layer_geometries(
    config: StreamConfig, own_windows: Sequence[int | None], undo_size: int
) -> list[RingGeometry]:
    """Return each layer's share of a stream.

    A layer whose own window is no larger than m keeps that, without sinks if other layers see
    further; all others keep sinks and window.

    Args:
        config: n and m.
        own_windows: tokens that the model lets each layer see, None for all.
        undo_size: overwritten entries that each layer remembers.
    """
    n, m = config.num_sink_tokens, config.window_size
    sinks_of_local = n if all(window is not None for window in own_windows) else 0
    return [
        RingGeometry(n, m, undo_size)
        if window is None or window > m
        else RingGeometry(sinks_of_local, window, undo_size)
        for window in own_windows
    ]


def tokens_taken_back(config: StreamConfig) -> int:
    """Return the tokens that a rewind takes off at most, once eviction has begun.

    One more than may be taken back: going on from there needs the logits of the token before.
    """
    return config.max_rewind_tokens + 1 if config.max_rewind_tokens else 0
