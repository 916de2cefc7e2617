"""A family of models: its configuration, its facts, and random weights for it.

Shapes are the same everywhere unless a family says otherwise: 4 query heads over 2 key/value
heads of size 16.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel

from tests.reference.layer_facts import LayerFacts

VOCAB_SIZE = 71
HEADS, KV_HEADS, HEAD_DIM = 4, 2, 16
HIDDEN = HEADS * HEAD_DIM
GROUPED = 2 * KV_HEADS * HEAD_DIM  # numbers cached per token and layer with grouped queries
FULL = 2 * HEADS * HEAD_DIM  # the same with one key/value head per query head

Facts = Callable[[int], Sequence[LayerFacts]]


COMMON: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": HIDDEN,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


@dataclass(frozen=True)
class Family:
    """One model class and configuration.

    Args:
        name: how tests call it.
        model_type: its name in transformers.
        facts: each layer's facts for queries that see the given number of tokens.
        fields: fields of its config.
        shapes: pairs of num_sink_tokens and window_size to test it with.
        implementations: the model's own attention implementations that are right.
    """

    name: str
    model_type: str
    facts: Facts
    fields: dict[str, Any]
    shapes: tuple[tuple[int, int], ...] = ((4, 12), (1, 5))
    implementations: tuple[str, ...] = ("eager", "sdpa")

    @property
    def rotary(self) -> bool:
        """Whether any layer turns its keys."""
        return any(layer.inv_freq is not None for layer in self.facts(0))

    def __str__(self) -> str:
        return self.name


def config_of(model_type: str, fields: dict[str, Any]) -> PreTrainedConfig:
    """Return a config; it gets a copy of `fields`, for configs complete what they are given."""
    return AutoConfig.for_model(model_type, **deepcopy(fields))


def with_random_weights(model: PreTrainedModel) -> PreTrainedModel:
    """Make every part of a model matter: attention neither flat nor concentrated on one token."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if "norm" in name or name.endswith(".ln_f.weight"):
            continue
        spread = 0.2 if parameter.ndim == 1 else 1.3 * parameter.shape[-1] ** -0.5
        parameter.data.normal_(0, spread, generator=generator)
    return model.eval().requires_grad_(False)


def same(layer: LayerFacts, num_layers: int = 3) -> Facts:
    """Return the facts of a model whose layers are all alike."""
    return lambda cache_size: (layer,) * num_layers


HYBRID = {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}


def hybrid(local: LayerFacts, everywhere: LayerFacts) -> Facts:
    """Return the facts of a model with the layer types of HYBRID."""
    return lambda cache_size: (local, everywhere, local)
