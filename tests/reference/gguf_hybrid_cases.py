"""Cases of architectures that mix attention with layers that carry a state."""

from __future__ import annotations

from tests.reference.gguf_case import (
    BASE,
    EXPERTS,
    HEAD,
    LAYER_NORM,
    RMS,
    GgufFamilyCase,
    rms,
    rope,
)
from tests.reference.gguf_rms_cases import GRANITE, GRANITE_FIELDS

_LFM2_LAYERS = ["conv", "full_attention", "conv", "full_attention"]
_LFM2_FIELDS = {
    **rope(),
    "norm_eps": 1e-3,
    "layer_types": _LFM2_LAYERS,
    "conv_L_cache": 3,
}
_LFM2_FACTS = {
    **RMS,
    **BASE,
    "attention.head_count_kv": [0, 2, 0, 2],
    "shortconv.l_cache": 3,
    "vocab_size": 72,
}
_DELTA_LAYERS = ["linear_attention", "linear_attention", "full_attention", "linear_attention"]
_DELTA_FIELDS = {
    "head_dim": 16,
    "layer_types": _DELTA_LAYERS,
    "linear_conv_kernel_dim": 3,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 6,
}
_DELTA_FACTS = {
    "attention.key_length": 16,
    "attention.value_length": 16,
    "rope.dimension_count": 4,
    "full_attention_interval": 3,
    "ssm.conv_kernel": 3,
    "ssm.state_size": 16,
    "ssm.group_count": 2,
    "ssm.time_step_rank": 6,
    "ssm.inner_size": 96,
}
_QUARTER = rope(partial_rotary_factor=0.25)
_AXES = rope(partial_rotary_factor=0.25, mrope_section=[1, 1, 0], mrope_interleaved=True)
_SECTIONS = {"rope.dimension_sections": [1, 1, 0, 0]}
_SHARED_EXPERT = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24} | {
    "shared_expert_intermediate_size": 40
}
_SHARED_FACTS = {**EXPERTS, "expert_feed_forward_length": 24} | {
    "expert_shared_feed_forward_length": 40
}
_MAMBA_LAYERS = ["linear_attention", "full_attention", "linear_attention", "full_attention"]
_MAMBA_FIELDS = {
    "mamba_n_heads": 8,
    "mamba_d_head": 16,
    "mamba_n_groups": 2,
    "mamba_d_state": 16,
    "mamba_d_conv": 4,
}
_MAMBA_FACTS = {
    "ssm.conv_kernel": 4,
    "ssm.state_size": 16,
    "ssm.group_count": 2,
    "ssm.time_step_rank": 8,
    "ssm.inner_size": 128,
}
_GRANITE_FIELDS = {**GRANITE_FIELDS, **_MAMBA_FIELDS, "layer_types": _MAMBA_LAYERS}
_GRANITE_FACTS = {**GRANITE, **_MAMBA_FACTS, "attention.head_count_kv": [0, 2, 0, 2]}
_FALCON_FACTORS = {
    "lm_head_multiplier": 0.5,
    "embedding_multiplier": 2.0,
    "mlp_multipliers": [0.5, 1.5],
    "key_multiplier": 0.75,
    "attention_in_multiplier": 1.25,
    "attention_out_multiplier": 0.8,
    "ssm_multipliers": [0.5, 0.75, 1.5, 1.25, 2.0],
    "ssm_in_multiplier": 1.1,
    "ssm_out_multiplier": 0.9,
}
_STATE = "linear_attention"
_NEMOTRON_FIELDS = {
    "layer_norm_epsilon": 1e-3,
    "head_dim": 8,
    "mamba_num_heads": 8,
    "mamba_head_dim": 16,
    "n_groups": 2,
    "ssm_state_size": 16,
    "conv_kernel": 4,
}
_NEMOTRON_FACTS = {**LAYER_NORM, **_MAMBA_FACTS, **HEAD, "attention.head_count_kv": [0, 0, 2, 0]}
_JAMBA_FIELDS = {
    "attn_layer_period": 3,
    "attn_layer_offset": 1,
    "mamba_d_state": 16,
    "mamba_d_conv": 4,
    "mamba_expand": 2,
    "mamba_dt_rank": 4,
}
_JAMBA_FACTS = {
    "attention.head_count_kv": [0, 2, 0, 0],
    "ssm.conv_kernel": 4,
    "ssm.state_size": 16,
    "ssm.time_step_rank": 4,
    "ssm.inner_size": 128,
}
_QWEN3NEXT = rms(
    "qwen3_next",
    {**_DELTA_FIELDS, **_QUARTER, **_SHARED_EXPERT},
    {**_DELTA_FACTS, **_SHARED_FACTS},
)

HYBRID_CASES: dict[str, GgufFamilyCase] = {
    "lfm2": GgufFamilyCase(
        "lfm2", {**_LFM2_FIELDS, "block_auto_adjust_ff_dim": False}, _LFM2_FACTS
    ),
    "lfm2-adjusted": GgufFamilyCase(
        "lfm2",
        {**_LFM2_FIELDS, "intermediate_size": 100, "block_multiple_of": 32},
        {**_LFM2_FACTS, "feed_forward_length": 96},
    ),
    "lfm2moe": GgufFamilyCase(
        "lfm2_moe",
        {**_LFM2_FIELDS, "num_dense_layers": 1, "num_experts": 4, "num_experts_per_tok": 2}
        | {"moe_intermediate_size": 24},
        {**_LFM2_FACTS, **EXPERTS, "expert_feed_forward_length": 24}
        | {"leading_dense_block_count": 1, "expert_gating_func": 2},
        tied=True,
    ),
    "qwen3next": _QWEN3NEXT,
    "qwen3next-joined": _QWEN3NEXT,
    "qwen35": rms("qwen3_5_text", {**_DELTA_FIELDS, **_AXES}, {**_DELTA_FACTS, **_SECTIONS}),
    "qwen35moe": rms(
        "qwen3_5_moe_text",
        {**_DELTA_FIELDS, **_AXES, **_SHARED_EXPERT},
        {**_DELTA_FACTS, **_SECTIONS, **_SHARED_FACTS},
    ),
    "granitehybrid": rms(
        "granitemoehybrid",
        {**_GRANITE_FIELDS, "num_local_experts": 0, "shared_intermediate_size": 48},
        {**_GRANITE_FACTS, "rope.scaling.finetuned": False}
        | {"expert_count": 0, "expert_used_count": 0},
    ),
    "granitehybrid-sparse": rms(
        "granitemoehybrid",
        {**_GRANITE_FIELDS, "num_local_experts": 4, "num_experts_per_tok": 2}
        | {"shared_intermediate_size": 40, "position_embedding_type": "rope"},
        {**_GRANITE_FACTS, **EXPERTS} | {"expert_shared_feed_forward_length": 40},
    ),
    "falcon-h1": rms(
        "falcon_h1",
        {**_MAMBA_FIELDS, **_FALCON_FACTORS, "head_dim": 8, "mamba_d_ssm": 128},
        {**_MAMBA_FACTS, **HEAD},
        tied=False,
        is_factored=True,
    ),
    "falcon-h1-normalised": rms(
        "falcon_h1",
        {**_MAMBA_FIELDS, "head_dim": 8, "mamba_d_ssm": 128, "mamba_rms_norm": True}
        | {"mamba_norm_before_gate": False},
        {**_MAMBA_FACTS, **HEAD},
    ),
    "nemotron_h": rms(
        "nemotron_h",
        {**_NEMOTRON_FIELDS, "layers_block_type": [_STATE, "mlp", "full_attention", "mlp"]},
        {**_NEMOTRON_FACTS, "feed_forward_length": [0, 48, 0, 48]},
        tied=False,
    ),
    "nemotron_h_moe": rms(
        "nemotron_h",
        {**_NEMOTRON_FIELDS, "layers_block_type": [_STATE, "moe", "full_attention", "moe"]}
        | {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1}
        | {"moe_intermediate_size": 24, "moe_shared_expert_intermediate_size": 40}
        | {"routed_scaling_factor": 1.5, "norm_topk_prob": True},
        {**_NEMOTRON_FACTS, **EXPERTS, "feed_forward_length": [0, 24, 0, 24]}
        | {"expert_feed_forward_length": 24, "expert_shared_feed_forward_length": 40}
        | {"expert_shared_count": 1, "expert_weights_norm": True, "expert_weights_scale": 1.5}
        | {"expert_group_count": 1},
        tied=False,
    ),
    "nemotron_h_moe-latent": rms(
        "nemotron_h",
        {**_NEMOTRON_FIELDS, "layers_block_type": [_STATE, "moe", "full_attention", "moe"]}
        | {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1}
        | {"moe_intermediate_size": 24, "moe_shared_expert_intermediate_size": 40}
        | {"routed_scaling_factor": 1.0, "norm_topk_prob": True, "moe_latent_size": 32},
        {**_NEMOTRON_FACTS, **EXPERTS, "feed_forward_length": [0, 24, 0, 24]}
        | {"expert_feed_forward_length": 24, "expert_shared_feed_forward_length": 40}
        | {"expert_shared_count": 1, "expert_weights_norm": True, "expert_weights_scale": 1.0}
        | {"expert_group_count": 1, "moe_latent_size": 32},
        tied=False,
    ),
    "jamba": rms(
        "jamba",
        {**_JAMBA_FIELDS, "num_experts": 4, "num_experts_per_tok": 2}
        | {"expert_layer_period": 2, "expert_layer_offset": 1},
        {**_JAMBA_FACTS, **EXPERTS},
    ),
    "jamba-dense": rms(
        "jamba",
        {**_JAMBA_FIELDS, "num_experts": 1, "num_experts_per_tok": 1},
        {**_JAMBA_FACTS, "expert_count": 1, "expert_used_count": 1},
    ),
    "kimi-linear": GgufFamilyCase(
        "kimi_linear",
        {"rms_norm_eps": 1e-3, "num_key_value_heads": 4, "kv_lora_rank": 16, "q_lora_rank": None}
        | {"qk_rope_head_dim": 8, "qk_nope_head_dim": 10, "v_head_dim": 14}
        | {"layer_types": [_STATE, "full_attention", _STATE, "full_attention"]}
        | {"mlp_layer_types": ["dense", "sparse", "sparse", "sparse"]}
        | {"linear_head_dim": 16, "linear_num_heads": 4, "linear_conv_kernel_dim": 4}
        | {"num_local_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1}
        | {"moe_intermediate_size": 24, "routed_scaling_factor": 1.5, "norm_topk_prob": True},
        {**RMS, **EXPERTS, "attention.head_count_kv": [0, 1, 0, 1], "ssm.conv_kernel": 4}
        | {"attention.kv_lora_rank": 16, "attention.key_length": 24, "rope.dimension_count": 8}
        | {"attention.key_length_mla": 18, "attention.value_length_mla": 14, "kda.head_dim": 16}
        | {"expert_feed_forward_length": 24, "expert_shared_count": 1, "expert_gating_func": 2}
        | {"leading_dense_block_count": 1, "expert_weights_scale": 1.5}
        | {"expert_weights_norm": True},
        tied=False,
    ),
}
