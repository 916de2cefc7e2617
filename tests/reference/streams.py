"""What tests reach into a stream for."""

from __future__ import annotations

from streamingllm import Stream
from streamingllm.graphs.decode_step import DecodeStep
from streamingllm.strategies import SinkStrategy


def sink_strategy(stream: Stream) -> SinkStrategy:
    """Return the strategy of a stream with sinks or a window."""
    strategy = stream._strategy
    assert isinstance(strategy, SinkStrategy)
    return strategy


def decode_step_of(stream: Stream) -> DecodeStep:
    """Return the decode step of a stream whose model has one."""
    step = sink_strategy(stream)._step()
    assert step is not None
    return step
