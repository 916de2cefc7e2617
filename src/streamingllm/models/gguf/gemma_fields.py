"""Fields of a configuration that only Gemma has."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import NormalDist
from typing import Any

from streamingllm.models.gguf.metadata import ArchitectureMetadata
from streamingllm.models.gguf.rope import local_rope_parameters, proportional_rope
from streamingllm.models.gguf.windows import WINDOW, layer_types

Metadata = ArchitectureMetadata
Fields = Mapping[str, Any]
_GEMMA2_27B_LAYERS, _GEMMA3_27B_LAYERS = 46, 62
_KEYS = frozenset({"attn_k", "attn_k_norm", "attn_v"})
_FULL = "full_attention"


def gemma2(metadata: Metadata) -> Fields:
    """Return Gemma 2's fields."""
    return {
        "sliding_window": metadata.integer(WINDOW, 4096),
        "layer_types": layer_types(metadata, 2),
        "query_pre_attn_scalar": _query_scale(metadata, _GEMMA2_27B_LAYERS),
        "attn_logit_softcapping": metadata.number("attn_logit_softcapping", 50.0) or None,
        "final_logit_softcapping": metadata.number("final_logit_softcapping", 30.0) or None,
    }


def gemma3(metadata: Metadata) -> Fields:
    """Return Gemma 3's fields; its local layers have a rotary base of their own."""
    return {
        "sliding_window": metadata.integer(WINDOW),
        "layer_types": layer_types(metadata, 6),
        "query_pre_attn_scalar": _query_scale(metadata, _GEMMA3_27B_LAYERS),
        "final_logit_softcapping": metadata.number("final_logit_softcapping", 0.0) or None,
        "rope_parameters": local_rope_parameters(metadata),
    }


def _query_scale(metadata: Metadata, large: int) -> int:
    """Return what Gemma's queries are scaled by; the 27B models are known by their depth."""
    if metadata.num_layers != large:
        return metadata.head_size
    return metadata.integer("embedding_length") // metadata.integer("attention.head_count")


def gemma3n(metadata: Metadata) -> Fields:
    """Return Gemma 3n's fields."""
    return {
        **_shared(metadata, 5),
        "hidden_size_per_layer_input": metadata.integer("embedding_length_per_layer_input"),
        "altup_active_idx": metadata.integer("altup.active_idx", 0),
        "altup_num_inputs": metadata.integer("altup.num_inputs"),
        "laurel_rank": metadata.rows("laurel_l.weight"),
        "activation_sparsity_pattern": _sparsity(metadata),
        "rope_parameters": local_rope_parameters(metadata),
    }


def _sparsity(metadata: Metadata) -> list[float]:
    """Return the share of activations that each layer leaves out.

    The file states the threshold of a normal distribution that leaves out such a share.
    """
    name = "activation_sparsity_scale"
    scales = metadata.array(name)
    if scales is None or len(scales) < metadata.num_layers:
        raise metadata.missing(name, scales)
    if not all(isinstance(scale, float) and not math.isnan(scale) for scale in scales):
        raise metadata.missing(name, scales)
    return [NormalDist().cdf(scale) for scale in scales[: metadata.num_layers]]


def gemma4(metadata: Metadata) -> Fields:
    """Return Gemma 4's fields; its global layers have heads of their own size and number."""
    shared = _shared(metadata, 6)
    own_keys = shared["layer_types"][: metadata.num_layers - shared["num_kv_shared_layers"]]
    heads = dict(zip(own_keys, metadata.by_layer("attention.head_count_kv"), strict=False))
    global_values = [
        metadata.tensor(f"blk.{layer}.attn_v.weight")
        for layer, kind in enumerate(own_keys)
        if kind == _FULL
    ]
    widths = metadata.by_layer("feed_forward_length")
    return {
        **shared,
        **_gemma4_experts(metadata),
        "intermediate_size": widths[0],
        "use_double_wide_mlp": widths[-1] == 2 * widths[0],
        "head_dim": metadata.integer("attention.key_length_swa"),
        "global_head_dim": metadata.integer("attention.key_length"),
        "num_key_value_heads": heads.get("sliding_attention") or heads[_FULL],
        "num_global_key_value_heads": heads.get(_FULL),
        "attention_k_eq_v": None in global_values,
        "hidden_size_per_layer_input": metadata.integer("embedding_length_per_layer_input", 0),
        "rope_parameters": _gemma4_rope(metadata),
    }


def _gemma4_experts(metadata: Metadata) -> Fields:
    if not metadata.has_tensor("ffn_gate_inp.weight"):
        return {"enable_moe_block": False}
    return {
        "enable_moe_block": True,
        "num_experts": metadata.integer("expert_count"),
        "top_k_experts": metadata.integer("expert_used_count"),
        "moe_intermediate_size": metadata.integer("expert_feed_forward_length"),
    }


def _gemma4_rope(metadata: Metadata) -> dict[str, dict[str, Any]]:
    local_size = metadata.integer("attention.key_length_swa")
    if metadata.integer("rope.dimension_count_swa", local_size) != local_size:
        raise metadata.unsupported("rope.dimension_count_swa", "rotates local keys in part")
    local = local_rope_parameters(metadata)["sliding_attention"]
    return {_FULL: proportional_rope(metadata), "sliding_attention": local}


def _shared(metadata: Metadata, period: int) -> dict[str, Any]:
    """Return the fields of families whose last layers use the keys of earlier ones."""
    per_layer = metadata.tensor("per_layer_token_embd.weight")
    rows = metadata.vocab_size if per_layer is None else per_layer.shape[0]
    name = "attention.shared_kv_layers"
    if (shared := metadata.integer(name, 0)) >= metadata.num_layers:
        raise metadata.missing(name, shared)
    return {
        "sliding_window": metadata.integer(WINDOW),
        "layer_types": layer_types(metadata, period),
        "final_logit_softcapping": metadata.number("final_logit_softcapping", 0.0) or None,
        "num_kv_shared_layers": shared,
        "vocab_size_per_layer_input": rows,
    }


def uses_other_keys(metadata: Metadata, layer: int, name: str) -> bool:
    """Tell whether a tensor makes keys or values for a layer that uses those of an earlier one."""
    shared = metadata.integer("attention.shared_kv_layers", 0)
    return name in _KEYS and layer >= metadata.num_layers - shared
