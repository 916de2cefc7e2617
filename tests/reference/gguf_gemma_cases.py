"""Cases of Gemma's architectures."""

from __future__ import annotations

from tests.reference.gguf_case import (
    EXPERTS,
    HEAD,
    LINEAR,
    LOCAL_THIRD,
    WINDOW,
    GgufFamilyCase,
    rms,
)

LOCAL_HALF = ["sliding_attention", "full_attention", "sliding_attention", "full_attention"]
PATTERN = {"attention.sliding_window_pattern": [True, False, True, False]}
TWO_BASES = {
    "full_attention": {"rope_type": "default", "rope_theta": 500.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
}
GEMMA4_ROPE = {
    **TWO_BASES,
    "full_attention": {
        "rope_type": "proportional",
        "rope_theta": 500.0,
        "partial_rotary_factor": 0.25,
    },
}
GEMMA4_FACTS = {
    **WINDOW,
    **PATTERN,
    "attention.key_length": 16,
    "attention.value_length": 16,
    "attention.key_length_swa": 8,
    "attention.value_length_swa": 8,
    "rope.dimension_count": 16,
    "rope.dimension_count_swa": 8,
    "rope.freq_base_swa": 100.0,
    "final_logit_softcapping": 3.0,
}
GEMMA4_FIELDS = {
    "head_dim": 8,
    "global_head_dim": 16,
    "sliding_window": 6,
    "layer_types": LOCAL_HALF,
    "final_logit_softcapping": 3.0,
    "rope_parameters": GEMMA4_ROPE,
}
TURNED = {"rope_freqs.weight": [1.0, 1.0, *[1e30] * 6]}

GEMMA_CASES: dict[str, GgufFamilyCase] = {
    "gemma": rms("gemma", {"head_dim": 8}, HEAD, tied=True),
    "gemma2": rms(
        "gemma2",
        {"head_dim": 8, "sliding_window": 6, "query_pre_attn_scalar": 8}
        | {"attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0},
        {**HEAD, **WINDOW, "attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0},
        tied=True,
    ),
    "gemma3": rms(
        "gemma3_text",
        {"head_dim": 8, "sliding_window": 6, "query_pre_attn_scalar": 8}
        | {"layer_types": LOCAL_THIRD}
        | {
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 500.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
            }
        },
        {**HEAD, **WINDOW, **LINEAR, "rope.freq_base_swa": 100.0}
        | {"attention.sliding_window_pattern": [True, True, False, True]},
    ),
    "gemma3n": rms(
        "gemma3n_text",
        {"head_dim": 8, "sliding_window": 6, "layer_types": LOCAL_HALF, "num_kv_shared_layers": 2}
        | {"vocab_size_per_layer_input": 72, "hidden_size_per_layer_input": 32, "laurel_rank": 16}
        | {"activation_sparsity_pattern": [0.95, 0.75, 0.0, 0.0], "final_logit_softcapping": 3.0}
        | {"rope_parameters": TWO_BASES},
        {**HEAD, **WINDOW, **PATTERN, "rope.freq_base_swa": 100.0, "final_logit_softcapping": 3.0}
        | {"altup.active_idx": 0, "altup.num_inputs": 4, "embedding_length_per_layer_input": 32}
        | {"attention.shared_kv_layers": 2}
        | {"activation_sparsity_scale": [1.6448536, 0.6744898, float("-inf"), float("-inf")]},
        tied=True,
    ),
    "gemma3n-unshared": rms(  # as llama.cpp has it, which reads less from the file
        "gemma3n_text",
        {"head_dim": 8, "sliding_window": 6, "num_kv_shared_layers": 0, "num_hidden_layers": 5}
        | {"intermediate_size": 4096}
        | {"vocab_size_per_layer_input": 72, "hidden_size_per_layer_input": 256, "laurel_rank": 64}
        | {"activation_sparsity_pattern": [0.95] * 5, "final_logit_softcapping": 30.0}
        | {"rope_parameters": TWO_BASES},
        {**HEAD, **WINDOW, "rope.freq_base_swa": 100.0, "final_logit_softcapping": 30.0}
        | {"altup.active_idx": 0, "altup.num_inputs": 4, "embedding_length_per_layer_input": 256}
        | {"attention.shared_kv_layers": 0, "block_count": 5, "feed_forward_length": 4096}
        | {"activation_sparsity_scale": [1.6448536] * 5},
        tied=True,
    ),
    "gemma4": rms(
        "gemma4_text",
        {**GEMMA4_FIELDS, "num_kv_shared_layers": 2, "use_double_wide_mlp": True}
        | {"vocab_size_per_layer_input": 72, "hidden_size_per_layer_input": 32},
        {**GEMMA4_FACTS, "attention.shared_kv_layers": 2, "feed_forward_length": [48, 48, 96, 96]}
        | {"embedding_length_per_layer_input": 32},
        tied=True,
        tensors=TURNED,
    ),
    "gemma4-sparse": rms(
        "gemma4_text",
        {**GEMMA4_FIELDS, "hidden_size_per_layer_input": 0, "enable_moe_block": True}
        | {"num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 24}
        | {"attention_k_eq_v": True, "num_global_key_value_heads": 1},
        {**GEMMA4_FACTS, **EXPERTS, "expert_feed_forward_length": 24}
        | {"attention.head_count_kv": [2, 1, 2, 1], "attention.shared_kv_layers": 0}
        | {"embedding_length_per_layer_input": 0},
        tied=True,
        tensors=TURNED,
    ),
}
