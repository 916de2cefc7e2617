"""Fields of a configuration of families that mix attention with Mamba's state spaces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from streamingllm.models.gguf.family_fields import granite, routing
from streamingllm.models.gguf.hybrid_fields import kv_heads_by_layer
from streamingllm.models.gguf.metadata import ArchitectureMetadata

Metadata = ArchitectureMetadata
Fields = Mapping[str, Any]


def granitehybrid(metadata: Metadata) -> Fields:
    """Return the fields of Granite 4 with Mamba 2 layers, dense or with experts."""
    has_positions = metadata.flag("rope.scaling.finetuned", True)
    is_partial = metadata.integer("rope.dimension_count", metadata.head_size) != metadata.head_size
    if has_positions and is_partial:
        raise metadata.unsupported("rope.dimension_count", "rotates keys in part, as Bamba's are")
    inner, width = metadata.integer("ssm.inner_size"), metadata.integer("embedding_length")
    if inner % width:
        raise metadata.unsupported("ssm.inner_size", "is no multiple of the model's width")
    shared = metadata.rows("ffn_gate_shexp.weight") or metadata.rows("ffn_gate.weight")
    return {
        "num_local_experts": 0,
        **granite(metadata),
        **_mamba2(metadata),
        "layer_types": [
            "full_attention" if heads else "linear_attention"
            for heads in kv_heads_by_layer(metadata)
        ],
        "position_embedding_type": "rope" if has_positions else None,
        "shared_intermediate_size": shared,
        "mamba_expand": inner // width,
    }


def falcon_h1(metadata: Metadata) -> Fields:
    """Return Falcon-H1's fields; the file's weights have its factors in them."""
    return {
        **_mamba2(metadata),
        "mamba_d_ssm": metadata.integer("ssm.inner_size"),
        "mamba_rms_norm": metadata.has_tensor("ssm_norm.weight"),
        "mamba_norm_before_gate": False,
        "projectors_bias": metadata.has_tensor("ssm_out.bias"),
        "attention_bias": metadata.has_tensor("attn_q.bias"),
        "mlp_bias": metadata.has_tensor("ffn_down.bias"),
    }


def _mamba2(metadata: Metadata) -> dict[str, Any]:
    """Return the fields of layers with Mamba 2's state."""
    heads = metadata.integer("ssm.time_step_rank")
    return {
        "mamba_n_heads": heads,
        "mamba_d_head": metadata.integer("ssm.inner_size") // heads,
        "mamba_n_groups": metadata.integer("ssm.group_count"),
        "mamba_d_state": metadata.integer("ssm.state_size"),
        "mamba_d_conv": metadata.integer("ssm.conv_kernel"),
        "mamba_conv_bias": metadata.has_tensor("ssm_conv1d.bias"),
        "mamba_proj_bias": metadata.has_tensor("ssm_in.bias"),
    }


def nemotron_h(metadata: Metadata) -> Fields:
    """Return Nemotron-H's fields; each of its layers is one mixer."""
    return _nemotron(metadata, "mlp")


def nemotron_h_moe(metadata: Metadata) -> Fields:
    """Return the fields of Nemotron-H with experts."""
    latent = metadata.integer("moe_latent_size", 0)
    return {
        **_nemotron(metadata, "moe"),
        **routing(metadata),
        "num_experts_per_tok": metadata.integer("expert_used_count"),
        "moe_intermediate_size": metadata.integer("expert_feed_forward_length"),
        "moe_shared_expert_intermediate_size": metadata.rows("ffn_up_shexp.weight"),
        "moe_latent_size": latent or None,
    }


def _nemotron(metadata: Metadata, feed_forward: str) -> dict[str, Any]:
    widths = metadata.by_layer("feed_forward_length")
    heads = metadata.integer("ssm.time_step_rank")
    kinds = [
        "full_attention" if kv_heads else feed_forward if width else "linear_attention"
        for kv_heads, width in zip(kv_heads_by_layer(metadata), widths, strict=True)
    ]
    return {
        "layers_block_type": kinds,
        "intermediate_size": max(widths),
        "mamba_num_heads": heads,
        "mamba_head_dim": metadata.integer("ssm.inner_size") // heads,
        "n_groups": metadata.integer("ssm.group_count"),
        "ssm_state_size": metadata.integer("ssm.state_size"),
        "conv_kernel": metadata.integer("ssm.conv_kernel"),
        "use_conv_bias": metadata.has_tensor("ssm_conv1d.bias"),
        "use_bias": metadata.has_tensor("ssm_in.bias"),
        "mlp_bias": metadata.has_tensor("ffn_up.bias"),
    }


def jamba(metadata: Metadata) -> Fields:
    """Return Jamba's fields.

    Raises:
        ModelLoadError: layers with attention, or with experts, are not at equal distances.
    """
    inner, width = metadata.integer("ssm.inner_size"), metadata.integer("embedding_length")
    if inner % width:
        raise metadata.unsupported("ssm.inner_size", "is no multiple of the model's width")
    attention = [bool(heads) for heads in kv_heads_by_layer(metadata)]
    sparse = [
        metadata.tensor(f"blk.{layer}.ffn_gate_inp.weight") is not None
        for layer in range(metadata.num_layers)
    ]
    attention_period, attention_offset = _period(metadata, attention)
    expert_period, expert_offset = _period(metadata, sparse) if any(sparse) else (1, 0)
    return {
        "attn_layer_period": attention_period,
        "attn_layer_offset": attention_offset,
        "expert_layer_period": expert_period,
        "expert_layer_offset": expert_offset,
        "num_experts": metadata.integer("expert_count") if any(sparse) else 1,
        "num_experts_per_tok": metadata.integer("expert_used_count", 1),
        "mamba_expand": inner // width,
        "mamba_dt_rank": metadata.integer("ssm.time_step_rank"),
        "mamba_d_state": metadata.integer("ssm.state_size"),
        "mamba_d_conv": metadata.integer("ssm.conv_kernel"),
        "mamba_conv_bias": metadata.has_tensor("ssm_conv1d.bias"),
        "mamba_proj_bias": metadata.has_tensor("ssm_in.bias"),
    }


def _period(metadata: Metadata, marks: list[bool]) -> tuple[int, int]:
    """Return the distance of marked layers, and the first of them."""
    marked = [layer for layer, is_marked in enumerate(marks) if is_marked]
    if not marked:
        raise metadata.unsupported("attention.head_count_kv", "has no layer with attention")
    offset = marked[0]
    period = marked[1] - offset if len(marked) > 1 else len(marks)
    if marks != [layer % period == offset for layer in range(len(marks))]:
        raise metadata.unsupported("block_count", "layers have no equal distances between kinds")
    return period, offset
