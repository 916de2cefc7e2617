"""Cases of architectures with layer normalisation."""

from __future__ import annotations

from tests.reference.gguf_case import (
    BASE,
    LAYER_NORM,
    WINDOW,
    GgufFamilyCase,
    norm,
    periodic,
    rope,
)

NORM_CASES: dict[str, GgufFamilyCase] = {
    "starcoder2": norm("starcoder2", "norm_epsilon", {}, {}),
    "stablelm": norm(
        "stablelm",
        "layer_norm_eps",
        {"use_qkv_bias": True, **rope(partial_rotary_factor=0.5)},
        {"rope.dimension_count": 8},
    ),
    "stablelm-parallel": norm(
        "stablelm",
        "layer_norm_eps",
        {"use_parallel_residual": True, **rope(partial_rotary_factor=0.5)},
        {"rope.dimension_count": 8},
    ),
    "phi2": norm(
        "phi",
        "layer_norm_eps",
        rope(partial_rotary_factor=0.5),
        {"rope.dimension_count": 8},
        tied=False,
    ),
    "command-r": norm(
        "cohere", "layer_norm_eps", {"logit_scale": 0.5}, {"logit_scale": 0.5}, tied=True
    ),
    "command-r-norms": norm(
        "cohere",
        "layer_norm_eps",
        {"logit_scale": 0.5, "use_qk_norm": True},
        {"logit_scale": 0.5},
        tied=True,
    ),
    "cohere2": norm(
        "cohere2",
        "layer_norm_eps",
        {"logit_scale": 0.5, "head_dim": 16, "sliding_window": 6, "layer_types": periodic(4)},
        {"logit_scale": 0.5, **WINDOW},
        tied=True,
    ),
    "olmo": GgufFamilyCase(
        "olmo",
        {"clip_qkv": 0.5, **rope()},
        {"attention.layer_norm_epsilon": 1e-5, "attention.clamp_kqv": 0.5, **BASE},
    ),
    "nemotron": norm(
        "nemotron",
        "norm_eps",
        {"head_dim": 16, **rope(partial_rotary_factor=0.5)},
        {"rope.dimension_count": 8},
    ),
    "falcon": norm(
        "falcon",
        "layer_norm_epsilon",
        {"multi_query": True, "new_decoder_architecture": False, "ffn_hidden_size": 48}
        | {"alibi": False, "parallel_attn": True, "bias": False},
        {"attention.head_count_kv": 1},
    ),
    "falcon-40b": norm(
        "falcon",
        "layer_norm_epsilon",
        {"new_decoder_architecture": True, "num_kv_heads": 2, "ffn_hidden_size": 48}
        | {"alibi": False, "parallel_attn": True, "bias": False},
        {},
    ),
    "bloom": GgufFamilyCase(
        "bloom",
        {"n_layer": 4, "n_head": 4, "layer_norm_epsilon": 1e-3},
        {**LAYER_NORM, "feed_forward_length": 256, "attention.head_count_kv": 4},
    ),
    "gptneox": norm(
        "gpt_neox",
        "layer_norm_eps",
        rope(partial_rotary_factor=0.5),
        {"rope.dimension_count": 8, "use_parallel_residual": True, "attention.head_count_kv": 4},
    ),
    "mpt": GgufFamilyCase(
        "mpt",
        {"d_model": 64, "n_layers": 4, "n_heads": 4, "expansion_ratio": 4, "max_seq_len": 256}
        | {"attn_config": {"clip_qkv": 0.5}, "layer_norm_epsilon": 1e-5},
        {"attention.layer_norm_epsilon": 1e-5, "feed_forward_length": 256}
        | {"attention.max_alibi_bias": 8.0, "attention.clamp_kqv": 0.5}
        | {"attention.head_count_kv": 4},
        tied=True,
    ),
    "gpt2": GgufFamilyCase(
        "gpt2",
        {"n_embd": 64, "n_layer": 4, "n_head": 4, "n_positions": 256, "n_inner": 48}
        | {"layer_norm_epsilon": 1e-3},
        {**LAYER_NORM, "attention.head_count_kv": 4},
    ),
}
