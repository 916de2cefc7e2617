"""What one GGUF architecture states: as a configuration and as metadata of a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Facts = Mapping[str, Any]


@dataclass(frozen=True)
class GgufFamilyCase:
    """State one architecture twice: as a configuration and as metadata of a file.

    Args:
        model_type: of transformers.
        fields: of the configuration, beyond the common ones.
        facts: of the file, beyond the common ones, without the prefix.
        tied: whether the output layer can only be the embedding; None for either.
        tensors: rows of numbers that are no parameters, by name.
        is_factored: whether weights of the file have factors of the configuration in them.
    """

    model_type: str
    fields: Facts = field(default_factory=dict)
    facts: Facts = field(default_factory=dict)
    tied: bool | None = None
    tensors: Mapping[str, Sequence[float]] = field(default_factory=dict)
    is_factored: bool = False


COMMON_FIELDS: Facts = {
    "vocab_size": 72,
    "num_hidden_layers": 4,
    "hidden_size": 64,
    "intermediate_size": 48,
    "max_position_embeddings": 256,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
COMMON_FACTS: Facts = {
    "block_count": 4,
    "embedding_length": 64,
    "feed_forward_length": 48,
    "context_length": 256,
    "attention.head_count": 4,
    "attention.head_count_kv": 2,
}
RMS = {"attention.layer_norm_rms_epsilon": 1e-3}
RMS_FIELD = {"rms_norm_eps": 1e-3}
LAYER_NORM = {"attention.layer_norm_epsilon": 1e-3}


def rope(**fields: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0, **fields}}


BASE = {"rope.freq_base": 500.0}
HEAD = {"attention.key_length": 8, "attention.value_length": 8, "rope.dimension_count": 8}
LINEAR = {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}
YARN = {
    "rope.scaling.type": "yarn",
    "rope.scaling.factor": 8.0,
    "rope.scaling.original_context_length": 32,
}
YARN_FIELDS = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 32}
EXPERTS = {"expert_count": 4, "expert_used_count": 2}
WINDOW = {"attention.sliding_window": 6}
LOCAL_THIRD = ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"]


def periodic(period: int) -> list[str]:
    kinds = ("sliding_attention", "full_attention")
    return [kinds[(layer + 1) % period == 0] for layer in range(4)]


def rms(model_type: str, fields: Facts, facts: Facts, **more: Any) -> GgufFamilyCase:
    return GgufFamilyCase(
        model_type, {**RMS_FIELD, **rope(), **fields}, {**RMS, **BASE, **facts}, **more
    )


def norm(model_type: str, eps: str, fields: Facts, facts: Facts, **more: Any) -> GgufFamilyCase:
    return GgufFamilyCase(
        model_type,
        {eps: 1e-3, **rope(), **fields},
        {**LAYER_NORM, **BASE, **facts},
        **more,
    )
