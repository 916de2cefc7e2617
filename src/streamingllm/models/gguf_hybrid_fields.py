"""Fields of a configuration of families that mix attention with layers that carry a state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from streamingllm.errors import ModelLoadError
from streamingllm.models.gguf_metadata import ArchitectureMetadata
from streamingllm.models.gguf_rope import rope_parameters
from streamingllm.models.gguf_windows import WINDOW

Metadata = ArchitectureMetadata
Fields = Mapping[str, Any]
_AXES = 3  # of positions: time, height, width


def lfm2(metadata: Metadata) -> Fields:
    """Return LFM2's fields; layers without heads of keys and values are convolutions.

    Raises:
        ModelLoadError: the file is of an encoder, has local layers, or does not tell the kinds of
            layers.
    """
    _check_decoder(metadata)
    return {
        "layer_types": [
            "full_attention" if heads else "conv" for heads in _kv_heads_by_layer(metadata)
        ],
        "conv_L_cache": metadata.integer("shortconv.l_cache"),
        "conv_bias": metadata.has_tensor("shortconv.in_proj.bias"),
        "block_auto_adjust_ff_dim": False,
    }


def lfm2moe(metadata: Metadata) -> Fields:
    """Return the fields of LFM2 with experts, whose weights always sum to one."""
    shared = dict(lfm2(metadata))
    shared.pop("block_auto_adjust_ff_dim")
    return {
        **shared,
        "num_dense_layers": metadata.integer("leading_dense_block_count", 0),
        "num_experts": metadata.integer("expert_count"),
        "num_experts_per_tok": metadata.integer("expert_used_count"),
        "moe_intermediate_size": metadata.integer("expert_feed_forward_length"),
        "use_expert_bias": metadata.has_tensor("exp_probs_b.bias"),
        "routed_scaling_factor": metadata.number("expert_weights_scale", 1.0),
        "norm_topk_prob": True,
    }


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
    sections = metadata.array("rope.dimension_sections")
    if sections is None or len(sections) < _AXES:
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


def _kv_heads_by_layer(metadata: Metadata) -> list[int]:
    stated = metadata.array("attention.head_count_kv")
    if stated is None or len(stated) < metadata.num_layers:
        raise metadata.missing("attention.head_count_kv", stated)
    return stated[: metadata.num_layers]


def _check_decoder(metadata: Metadata) -> None:
    if not metadata.flag("attention.causal", True):
        raise ModelLoadError(
            f"{metadata.header.path}: {metadata.key('attention.causal')}=False describes an "
            "encoder; choose a file of a decoder"
        )
    if metadata.integer(WINDOW, 0):
        raise ModelLoadError(
            f"{metadata.header.path}: {metadata.key(WINDOW)} describes local layers, which "
            "transformers does not have in this family; choose a file without them"
        )
