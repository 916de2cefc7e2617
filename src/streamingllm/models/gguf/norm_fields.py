"""Fields of a configuration that only some families with layer normalisation have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from streamingllm.errors import ModelLoadError
from streamingllm.models.gguf.metadata import ArchitectureMetadata
from streamingllm.models.gguf.windows import WINDOW, layer_types, window

Metadata = ArchitectureMetadata
Fields = Mapping[str, Any]
_MPT_BIAS = 8.0


def starcoder2(metadata: Metadata) -> Fields:
    """Return StarCoder 2's fields."""
    return {"use_bias": metadata.has_tensor("attn_q.bias"), "sliding_window": window(metadata)}


def stablelm(metadata: Metadata) -> Fields:
    """Return StableLM's fields."""
    if metadata.has_tensor("attn_q_norm.weight"):
        raise ModelLoadError(
            f"{metadata.header.path}: has a normalisation for each head, which is not read; "
            "choose a StableLM without one"
        )
    return {
        "use_qkv_bias": metadata.has_tensor("attn_q.bias"),
        "use_parallel_residual": not metadata.has_tensor("ffn_norm.weight"),
    }


def cohere(metadata: Metadata) -> Fields:
    """Return Command R's fields."""
    return {
        "logit_scale": metadata.number("logit_scale"),
        "use_qk_norm": metadata.has_tensor("attn_q_norm.weight"),
        "attention_bias": metadata.has_tensor("attn_q.bias"),
    }


def cohere2(metadata: Metadata) -> Fields:
    """Return Command R7B's fields."""
    return {
        "logit_scale": metadata.number("logit_scale"),
        "attention_bias": metadata.has_tensor("attn_q.bias"),
        "sliding_window": metadata.integer(WINDOW),
        "layer_types": layer_types(metadata, 4),
    }


def nemotron(metadata: Metadata) -> Fields:
    """Return Nemotron's fields."""
    return {
        "attention_bias": metadata.has_tensor("attn_q.bias"),
        "mlp_bias": metadata.has_tensor("ffn_up.bias"),
    }


def falcon(metadata: Metadata) -> Fields:
    """Return Falcon's fields; the larger ones have several heads of keys and values."""
    groups = metadata.num_kv_heads
    has_two = metadata.has_tensor("attn_norm_2.weight")
    return {
        "multi_query": groups == 1,
        "new_decoder_architecture": groups > 1,
        "num_kv_heads": groups,
        "num_ln_in_parallel_attn": 2 if has_two else 1 if groups > 1 else None,
        "parallel_attn": True,
        "bias": metadata.has_tensor("attn_qkv.bias"),
        "alibi": False,
        "ffn_hidden_size": metadata.integer("feed_forward_length"),
    }


def bloom(metadata: Metadata) -> Fields:
    """Return BLOOM's fields."""
    return {
        "n_layer": metadata.num_layers,
        "n_head": metadata.integer("attention.head_count"),
    }


def neox(metadata: Metadata) -> Fields:
    """Return GPT-NeoX's fields."""
    return {
        "use_parallel_residual": metadata.flag("use_parallel_residual", True),
        "attention_bias": metadata.has_tensor("attn_qkv.bias"),
    }


def mpt(metadata: Metadata) -> Fields:
    """Return MPT's fields; transformers has one slope of distances alone."""
    width = metadata.integer("embedding_length")
    bias = metadata.number("attention.max_alibi_bias", 0.0)
    if bias != _MPT_BIAS:
        raise ModelLoadError(
            f"{metadata.header.path}: mpt.attention.max_alibi_bias={bias} is not supported; choose "
            f"a file with {_MPT_BIAS}"
        )
    return {
        "d_model": width,
        "n_layers": metadata.num_layers,
        "n_heads": metadata.integer("attention.head_count"),
        "max_seq_len": metadata.integer("context_length"),
        "expansion_ratio": metadata.integer("feed_forward_length") // width,
        "attn_config": {"clip_qkv": metadata.number("attention.clamp_kqv", 0.0) or None},
    }


def gpt2(metadata: Metadata) -> Fields:
    """Return GPT-2's fields."""
    return {
        "n_layer": metadata.num_layers,
        "n_embd": metadata.integer("embedding_length"),
        "n_head": metadata.integer("attention.head_count"),
        "n_positions": metadata.integer("context_length"),
        "n_inner": metadata.integer("feed_forward_length"),
    }
