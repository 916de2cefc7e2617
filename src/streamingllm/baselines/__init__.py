"""Strategies by name: ours and what we compare it with."""

from streamingllm.baselines.base import Strategy
from streamingllm.baselines.dense import DenseStrategy
from streamingllm.baselines.interpolation import InterpolationStrategy
from streamingllm.baselines.recompute import RecomputeStrategy
from streamingllm.baselines.sinks import SinkStrategy
from streamingllm.baselines.window import WindowStrategy

STRATEGIES: dict[str, type[Strategy]] = {
    "sinks": SinkStrategy,
    "dense": DenseStrategy,
    "window": WindowStrategy,
    "recompute": RecomputeStrategy,
    "interpolation": InterpolationStrategy,
}

__all__ = ["STRATEGIES", "SinkStrategy", "Strategy"]
