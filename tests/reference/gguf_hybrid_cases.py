"""Cases of architectures that mix attention with layers that carry a state."""

from __future__ import annotations

from tests.reference.gguf_case import BASE, EXPERTS, RMS, GgufFamilyCase, rms, rope

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
    "qwen3next": rms(
        "qwen3_next",
        {**_DELTA_FIELDS, **_QUARTER, **_SHARED_EXPERT},
        {**_DELTA_FACTS, **_SHARED_FACTS},
    ),
    "qwen35": rms("qwen3_5_text", {**_DELTA_FIELDS, **_AXES}, {**_DELTA_FACTS, **_SECTIONS}),
    "qwen35moe": rms(
        "qwen3_5_moe_text",
        {**_DELTA_FIELDS, **_AXES, **_SHARED_EXPERT},
        {**_DELTA_FACTS, **_SECTIONS, **_SHARED_FACTS},
    ),
}
