"""The families whose GGUF files are read, by the name of their architecture."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from streamingllm.models.gguf_family import (
    ATTENTION,
    DENSE,
    MLP,
    QK_NORMS,
    GgufFamily,
    Names,
    Place,
)
from streamingllm.models.gguf_metadata import ArchitectureMetadata
from streamingllm.models.gguf_rope import local_rope_parameters
from streamingllm.models.gguf_rows import interleaved_keys, interleaved_queries

_SANDWICH: Names = {
    "attn_norm": "input_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_PAIRS: Names = {
    "attn_q": Place("self_attn.q_proj", rows=interleaved_queries),
    "attn_k": Place("self_attn.k_proj", rows=interleaved_keys),
}
_GEMMA2_27B_LAYERS, _GEMMA3_27B_LAYERS = 46, 62


def _llama(metadata: ArchitectureMetadata) -> Mapping[str, Any]:
    return {
        "attention_bias": metadata.has_tensor("attn_q.bias"),
        "mlp_bias": metadata.has_tensor("ffn_down.bias"),
    }


def _no_window(metadata: ArchitectureMetadata) -> Mapping[str, Any]:
    return {"use_sliding_window": False}


def _qwen3(metadata: ArchitectureMetadata) -> Mapping[str, Any]:
    return {"use_sliding_window": False, "attention_bias": metadata.has_tensor("attn_q.bias")}


def _query_scale(metadata: ArchitectureMetadata, large: int) -> int:
    """Return what Gemma's queries are scaled by: llama.cpp tells the 27B models by their depth."""
    if metadata.num_layers != large:
        return metadata.head_size
    return metadata.integer("embedding_length") // metadata.integer("attention.head_count")


def _gemma3(metadata: ArchitectureMetadata) -> Mapping[str, Any]:
    capping = metadata.number("final_logit_softcapping", 0.0)
    rope = local_rope_parameters(metadata)
    return {
        "sliding_window": metadata.integer("attention.sliding_window"),
        "layer_types": layer_types(metadata, 6),
        "query_pre_attn_scalar": _query_scale(metadata, _GEMMA3_27B_LAYERS),
        "final_logit_softcapping": capping or None,
        "rope_parameters": rope,
    }


def layer_types(metadata: ArchitectureMetadata, period: int) -> list[str]:
    """Return the kind of each layer: local ones, and a global one at the end of each period.

    Args:
        metadata: of the file, which may state the kind of each layer itself, or the period.
        period: layers of one period if the file states none.
    """
    name, num_layers = "attention.sliding_window_pattern", metadata.num_layers
    stated = metadata.header.metadata.get(metadata.key(name))
    if isinstance(stated, list) and len(stated) >= num_layers:
        local = [bool(is_local) for is_local in stated[:num_layers]]
    else:
        period = metadata.integer(name, period) if isinstance(stated, int) else period
        local = [(index + 1) % period != 0 for index in range(num_layers)]
    return ["sliding_attention" if is_local else "full_attention" for is_local in local]


GGUF_FAMILIES: Mapping[str, GgufFamily] = MappingProxyType(
    {
        "llama": GgufFamily("llama", {**DENSE, **_PAIRS}, more=_llama),
        "qwen2": GgufFamily("qwen2", more=_no_window, has_head_dim=False),
        "qwen3": GgufFamily("qwen3", {**DENSE, **QK_NORMS}, more=_qwen3),
        "gemma3": GgufFamily(
            "gemma3_text",
            {**_SANDWICH, **ATTENTION, **QK_NORMS, **MLP},
            more=_gemma3,
            norm_shift=-1.0,
        ),
    }
)
