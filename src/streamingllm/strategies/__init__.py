"""Strategies by name: ours and what we compare it with."""

from streamingllm.strategies.base import Strategy
from streamingllm.strategies.dense import DenseStrategy
from streamingllm.strategies.interpolation import InterpolationStrategy
from streamingllm.strategies.key_eviction import KeyDiffStrategy, KeyNormStrategy
from streamingllm.strategies.position_eviction import CascadeStrategy, RandomStrategy
from streamingllm.strategies.recompute import RecomputeStrategy
from streamingllm.strategies.sinks import SinkStrategy
from streamingllm.strategies.window import WindowStrategy

STRATEGIES: dict[str, type[Strategy]] = {
    "sinks": SinkStrategy,
    "dense": DenseStrategy,
    "window": WindowStrategy,
    "recompute": RecomputeStrategy,
    "interpolation": InterpolationStrategy,
    "random": RandomStrategy,
    "key-norm": KeyNormStrategy,
    "key-diff": KeyDiffStrategy,
    "cascade": CascadeStrategy,
}

__all__ = ["STRATEGIES", "SinkStrategy", "Strategy"]
