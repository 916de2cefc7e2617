"""Tiny random-weight models of the hybrid classes, and the facts of their attention layers.

The facts are stated by hand, one for each layer that attends, in their order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import transformers
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel

from tests.reference.family import COMMON, HEAD_DIM, HEADS, config_of, with_random_weights
from tests.reference.family_builders import rope
from tests.reference.frequencies import frequencies
from tests.reference.layer_facts import LayerFacts


@dataclass(frozen=True)
class Hybrid:
    """One hybrid class and configuration.

    Args:
        model_type: its name in transformers.
        attention: facts of its layers that attend, in order.
        fields: fields of its config.
    """

    model_type: str
    attention: Sequence[LayerFacts]
    fields: dict[str, Any]


@cache
def hybrid_model(model_type: str, dtype: torch.dtype = torch.float64) -> PreTrainedModel:
    """Return a model of a hybrid class; the weights are the same for every dtype."""
    common = COMMON | {"num_hidden_layers": 4}
    config = config_of(model_type, common | HYBRIDS[model_type].fields)
    transformers.logging.set_verbosity_error()
    with torch.random.fork_rng():
        model = AutoModelForCausalLM.from_config(config, experts_implementation="eager")
    return with_random_weights(model).to(dtype)


_NOPE = LayerFacts()
_QUARTER, _HALF = rope(frequencies(HEAD_DIM // 4)), rope(frequencies(HEAD_DIM // 2))
_TYPES = {"layer_types": ["linear_attention", "full_attention"] * 2}
_EXPERTS = {
    "num_experts": 4,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
}
_DELTA = {
    "head_dim": HEAD_DIM,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 10_000.0,
        "partial_rotary_factor": 0.25,
    },
}
_MAMBA = {
    "mamba_n_heads": 8,
    "mamba_d_head": 16,
    "mamba_d_state": 16,
    "mamba_n_groups": 1,
    "mamba_chunk_size": 8,
}
_LATENT = _EXPERTS | {
    "num_key_value_heads": HEADS,
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 16,
    "head_dim": 8,
    "n_group": 1,
    "topk_group": 1,
    "num_expert_group": 1,
    "num_shared_experts": 1,
    "first_k_dense_replace": 1,
    "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"],
    "linear_head_dim": 8,
    "linear_num_heads": 4,
}
_ZAMBA = {
    "num_hidden_layers": 5,
    "attention_head_dim": 2 * HEAD_DIM,
    "num_key_value_heads": HEADS,
}

_ALL = (
    Hybrid("lfm2", [rope()] * 2, {"layer_types": ["conv", "full_attention"] * 2}),
    Hybrid(
        "lfm3",
        [rope(own_window=6), rope(frequencies(theta=1_000_000.0))],
        {
            "layer_types": ["conv", "sliding_attention", "conv", "full_attention"],
            "sliding_window": 6,
            "head_dim": HEAD_DIM,
            "rope_parameters": {
                "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
                "full_attention": {"rope_type": "default", "rope_theta": 1_000_000.0},
            },
        },
    ),
    Hybrid(
        "qwen3_next",
        [_QUARTER] * 2,
        _TYPES | _DELTA | _EXPERTS | {"shared_expert_intermediate_size": 24},
    ),
    Hybrid("qwen3_5_text", [_QUARTER] * 2, _TYPES | _DELTA),
    Hybrid(
        "granitemoehybrid",
        [_NOPE] * 2,
        _MAMBA
        | _EXPERTS
        | {"layer_types": ["mamba", "attention"] * 2, "shared_intermediate_size": 48},
    ),
    Hybrid(
        "falcon_h1",
        [rope()] * 4,
        _MAMBA | {"mamba_d_ssm": 64, "mamba_n_heads": 4, "head_dim": HEAD_DIM},
    ),
    Hybrid(
        "nemotron_h",
        [_NOPE] * 2,
        {
            "hybrid_override_pattern": "M*-M*-",
            "num_hidden_layers": 6,
            "mamba_num_heads": 8,
            "mamba_head_dim": 16,
            "ssm_state_size": 16,
            "n_groups": 2,
            "chunk_size": 8,
            "head_dim": HEAD_DIM,
        },
    ),
    Hybrid("kimi_linear", [_NOPE] * 2, _TYPES | _LATENT),
    Hybrid("olmo_hybrid", [rope()] * 2, _TYPES),
    Hybrid(
        "bamba",
        [_HALF] * 2,
        _MAMBA
        | {
            "attn_layer_indices": [1, 3],
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10_000.0,
                "partial_rotary_factor": 0.5,
            },
        },
    ),
    Hybrid(
        "bailing_hybrid",
        [rope(frequencies(8), start=8, cached="values")] * 2,
        _TYPES | _LATENT,
    ),
    Hybrid(
        "zamba2",
        [rope(frequencies(2 * HEAD_DIM))] * 2,
        _ZAMBA
        | {
            "layers_block_type": ["linear_attention", "hybrid"] * 2 + ["linear_attention"],
            "n_mamba_heads": 8,
            "mamba_headdim": 16,
            "mamba_d_state": 16,
            "mamba_ngroups": 1,
            "chunk_size": 8,
            "num_mem_blocks": 1,
            "adapter_rank": 8,
            "num_query_groups": HEADS,
            "use_mem_rope": True,
            "use_shared_attention_adapter": True,
        },
    ),
    Hybrid(
        "jamba",
        [_NOPE] * 2,
        {
            "attn_layer_period": 2,
            "attn_layer_offset": 1,
            "expert_layer_period": 2,
            "expert_layer_offset": 1,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "use_mamba_kernels": False,
            "mamba_d_state": 8,
            "mamba_dt_rank": 8,
        },
    ),
    Hybrid(
        "zamba",
        [_NOPE] * 2,
        _ZAMBA
        | {
            "layers_block_type": ["linear_attention"] * 2
            + ["hybrid", "linear_attention", "hybrid"],
            "n_mamba_heads": 2,
            "mamba_d_state": 8,
            "mamba_dt_rank": 8,
            "attn_layer_period": 2,
            "attn_layer_offset": 1,
            "use_mamba_kernels": False,
        },
    ),
)
# Families that came after the oldest release of transformers that is supported may be missing.
HYBRIDS = {hybrid.model_type: hybrid for hybrid in _ALL if hybrid.model_type in CONFIG_MAPPING}
