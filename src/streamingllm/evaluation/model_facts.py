"""Facts about a model: whether it can stream, its layers, what a cache takes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LayerGroup:
    """Describe layers of one kind.

    Args:
        attention: `global`, or `local` for layers with a sliding window of their own.
        own_window: that window in tokens, None for global layers.
        position_encoding: its name, with the rule that scales it, if any.
        num_kv_heads: key/value heads in the cache.
        key_size, value_size: numbers per head in the cache's two tensors.
        num_sink_tokens: sinks this layer keeps.
        window_size: recent tokens this layer keeps.
    """

    attention: str
    own_window: int | None
    position_encoding: str
    num_kv_heads: int
    key_size: int
    value_size: int
    num_sink_tokens: int
    window_size: int


@dataclass(frozen=True)
class ModelFacts:
    """Hold the findings of `inspect_model`.

    Args:
        family: transformers' `model_type`.
        parameters: how many, tied ones counted once.
        dtype: of the weights, and so of the cache.
        trained_length: positions the model was trained on; None where its config does not say.
        refusal: why the model cannot stream; None if it can, and only then is there what follows.
        layers: each kind of layer and how many there are, most frequent first.
        bytes_per_cached_token: over all layers.
        cache_bytes: of a full cache, for one stream, recurrent states included.
        state_bytes: of the recurrent states of a hybrid model; 0 for other models.
    """

    family: str
    parameters: int
    dtype: str
    trained_length: int | None
    refusal: str | None = None
    layers: tuple[tuple[LayerGroup, int], ...] = ()
    bytes_per_cached_token: int | None = None
    cache_bytes: int | None = None
    state_bytes: int = 0
