"""Bytes and operations of one token of a model."""

from __future__ import annotations

from dataclasses import dataclass

from streamingllm.config import StreamConfig
from streamingllm.errors import UnsupportedModelError
from streamingllm.evaluation.model_facts import ModelFacts

# Bits of a weight, scales included. In int4 the head stays in eight bits, hence more than 5.
WEIGHT_BITS = {"int8": 8.5, "int4": 5.75, "native": 5.75}


@dataclass(frozen=True)
class ModelCosts:
    """Hold what a pass over a model reads and computes.

    Args:
        weight_bytes: that a decode step reads.
        operations_per_token: multiplications and additions with weights, 2 for each parameter.
        operations_per_entry: of one token with one cached entry, over all layers.
        bytes_per_entry: of one cached token, over all layers.
        cache_bytes: of a full cache of sinks and window; local layers and states as they are.
        cache_size: entries of that cache.
        trained_length: positions that the model was trained on; None if not stated.
        rewind_bytes: of entries held aside, so that a stream can go back.
    """

    weight_bytes: float
    operations_per_token: float
    operations_per_entry: float
    bytes_per_entry: int
    cache_bytes: int
    cache_size: int
    trained_length: int | None
    rewind_bytes: int = 0


def costs_of(facts: ModelFacts, config: StreamConfig, quantize: str = "none") -> ModelCosts:
    """Return the costs of an inspected model.

    Args:
        facts: of the model with the cache in question.
        config: of that cache.
        quantize: bits of the weights, one of `WEIGHT_BITS`; all else leaves them in their dtype.

    Raises:
        UnsupportedModelError: the model cannot stream.
    """
    if facts.bytes_per_cached_token is None or facts.cache_bytes is None:
        raise UnsupportedModelError(str(facts.refusal))
    itemsize = {"float64": 8, "float32": 4}.get(facts.dtype, 2)
    bits = WEIGHT_BITS.get(quantize, 8 * itemsize)
    # Keys and values of a query head have the size of those in the cache. How many query heads
    # share one is not stated; three is the default model's number, and close to that of others.
    numbers = facts.bytes_per_cached_token / itemsize
    return ModelCosts(
        weight_bytes=facts.parameters * bits / 8,
        operations_per_token=2.0 * facts.parameters,
        operations_per_entry=2.0 * _QUERY_HEADS_PER_KV_HEAD * numbers,
        bytes_per_entry=facts.bytes_per_cached_token,
        cache_bytes=facts.cache_bytes,
        cache_size=config.cache_size,
        trained_length=facts.trained_length,
        rewind_bytes=facts.bytes_per_cached_token * config.max_rewind_tokens,
    )


_QUERY_HEADS_PER_KV_HEAD = 3
