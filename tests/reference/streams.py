"""What tests reach into a stream for."""

from __future__ import annotations

from streamingllm import Stream
from streamingllm.strategies import SinkStrategy


def sink_strategy(stream: Stream) -> SinkStrategy:
    """Return the strategy of a stream with sinks or a window."""
    strategy = stream._strategy
    assert isinstance(strategy, SinkStrategy)
    return strategy
