"""Fields of a configuration of families that mix attention with gated delta rules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from streamingllm.models.gguf.hybrid_fields import kv_heads_by_layer
from streamingllm.models.gguf.metadata import ArchitectureMetadata
from streamingllm.models.gguf.rope import rope_parameters, unscaled_rope

Metadata = ArchitectureMetadata
Fields = Mapping[str, Any]
_AXES = 3  # of positions: time, height, width


def qwen3next(metadata: Metadata) -> Fields:
    """Return Qwen3-Next's fields."""
    return {
        **_delta_net(metadata),
        **_qwen_experts(metadata),
        "decoder_sparse_step": 1,
        "norm_topk_prob": metadata.flag("expert_weights_norm", True),
    }


def qwen35(metadata: Metadata) -> Fields:
    """Return Qwen 3.5's fields; on text, its three axes of positions are the same."""
    sections = metadata.array("rope.dimension_sections") or []
    if len(sections) < _AXES or not all(type(size) is int and size >= 0 for size in sections):
        raise metadata.missing("rope.dimension_sections", sections)
    axes = {"mrope_section": sections[:_AXES], "mrope_interleaved": True}
    return {**_delta_net(metadata), "rope_parameters": rope_parameters(metadata) | axes}


def qwen35moe(metadata: Metadata) -> Fields:
    """Return the fields of Qwen 3.5 with experts."""
    return {**qwen35(metadata), **_qwen_experts(metadata)}


def _qwen_experts(metadata: Metadata) -> dict[str, Any]:
    return {
        "num_experts": metadata.integer("expert_count"),
        "num_experts_per_tok": metadata.integer("expert_used_count"),
        "moe_intermediate_size": metadata.integer("expert_feed_forward_length"),
        "shared_expert_intermediate_size": metadata.rows("ffn_gate_shexp.weight"),
    }


def _delta_net(metadata: Metadata) -> dict[str, Any]:
    """Return the fields of layers with a gated delta rule, and which layers these are."""
    values = metadata.integer("ssm.time_step_rank")
    keys = metadata.integer("ssm.group_count")
    if values % keys:
        raise metadata.missing("ssm.time_step_rank", values)
    return {
        "layer_types": _delta_layers(metadata),
        "linear_conv_kernel_dim": metadata.integer("ssm.conv_kernel"),
        "linear_key_head_dim": metadata.integer("ssm.state_size"),
        "linear_value_head_dim": metadata.integer("ssm.inner_size") // values,
        "linear_num_key_heads": keys,
        "linear_num_value_heads": values,
    }


def _delta_layers(metadata: Metadata) -> list[str]:
    stated = metadata.array("attention.recurrent_layers")
    if stated is not None and len(stated) >= metadata.num_layers:
        recurrent = [bool(is_recurrent) for is_recurrent in stated[: metadata.num_layers]]
    else:
        interval = metadata.integer("full_attention_interval", 4) or 4
        recurrent = [(layer + 1) % interval != 0 for layer in range(metadata.num_layers)]
    return ["linear_attention" if is_recurrent else "full_attention" for is_recurrent in recurrent]


def kimi_linear(metadata: Metadata) -> Fields:
    """Return Kimi Linear's fields; its attention has latent keys without positions."""
    heads, layers = metadata.integer("attention.head_count"), range(metadata.num_layers)
    shared_size = metadata.integer("rope.dimension_count")
    num_dense = metadata.integer("leading_dense_block_count", 0)
    return {
        "num_key_value_heads": heads,
        "rope_parameters": unscaled_rope(metadata),
        "layer_types": [
            "full_attention" if kv_heads else "linear_attention"
            for kv_heads in kv_heads_by_layer(metadata)
        ],
        "mlp_layer_types": ["dense" if layer < num_dense else "sparse" for layer in layers],
        "q_lora_rank": metadata.integer("attention.q_lora_rank", 0) or None,
        "kv_lora_rank": metadata.integer("attention.kv_lora_rank"),
        "qk_rope_head_dim": shared_size,
        "qk_nope_head_dim": metadata.integer("attention.key_length_mla") - shared_size,
        "v_head_dim": metadata.integer("attention.value_length_mla"),
        "linear_head_dim": metadata.integer("kda.head_dim"),
        "linear_num_heads": metadata.rows("ssm_beta.weight"),
        "linear_conv_kernel_dim": metadata.integer("ssm.conv_kernel"),
        "num_local_experts": metadata.integer("expert_count"),
        "num_experts_per_tok": metadata.integer("expert_used_count"),
        "n_shared_experts": metadata.integer("expert_shared_count"),
        "moe_intermediate_size": metadata.integer("expert_feed_forward_length"),
        "routed_scaling_factor": metadata.number("expert_weights_scale", 1.0),
        "norm_topk_prob": metadata.flag("expert_weights_norm", True),
        "n_group": metadata.integer("expert_group_count", 1),
        "topk_group": metadata.integer("expert_group_used_count", 1),
    }
