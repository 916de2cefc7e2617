"""Cases of architectures with root-mean-square normalisation."""

from __future__ import annotations

from tests.reference.gguf_case import (
    EXPERTS,
    HEAD,
    LINEAR,
    WINDOW,
    YARN,
    YARN_FIELDS,
    GgufFamilyCase,
    periodic,
    rms,
    rope,
)

GRANITE_FIELDS = {
    "embedding_multiplier": 3.0,
    "residual_multiplier": 0.5,
    "attention_multiplier": 0.2,
    "logits_scaling": 2.0,
}
GRANITE = {
    "embedding_scale": 3.0,
    "residual_scale": 0.5,
    "attention.scale": 0.2,
    "logit_scale": 2.0,
}
GROUPED_ROUTING = {
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "routed_scaling_factor": 1.5,
    "norm_topk_prob": True,
    "n_group": 2,
    "topk_group": 1,
    "moe_intermediate_size": 24,
}
GROUPED_FACTS = {
    **EXPERTS,
    "expert_shared_count": 1,
    "leading_dense_block_count": 1,
    "expert_weights_scale": 1.5,
    "expert_weights_norm": True,
    "expert_group_count": 2,
    "expert_group_used_count": 1,
    "expert_feed_forward_length": 24,
}
MLA_FIELDS = {
    "num_key_value_heads": 4,
    "kv_lora_rank": 16,
    "q_lora_rank": 12,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 10,
    "v_head_dim": 14,
    "head_dim": 8,
}
MLA_FACTS = {
    "attention.head_count_kv": 1,
    "attention.kv_lora_rank": 16,
    "attention.q_lora_rank": 12,
    "attention.key_length": 24,
    "attention.value_length": 16,
    "attention.key_length_mla": 18,
    "attention.value_length_mla": 14,
    "rope.dimension_count": 8,
}

RMS_CASES: dict[str, GgufFamilyCase] = {
    "llama": rms("llama", {"head_dim": 8}, HEAD),
    "llama-linear": rms("llama", rope(rope_type="linear", factor=4.0), LINEAR),
    "llama-yarn": rms("llama", rope(**YARN_FIELDS), YARN),
    "llama-bias": rms("llama", {"attention_bias": True, "mlp_bias": True}, {}),
    "llama-experts": rms(
        "mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2}, {**EXPERTS}
    ),
    "mistral3": rms("llama", {"head_dim": 8}, HEAD),
    "mistral3-scaled": rms(
        "ministral3",
        {"head_dim": 8, "sliding_window": None}
        | rope(**YARN_FIELDS, mscale=1.0, mscale_all_dim=1.0, llama_4_scaling_beta=0.1),
        {**HEAD, **YARN, "rope.scaling.yarn_log_multiplier": 1.0}
        | {"attention.temperature_scale": 0.1},
    ),
    "internlm2": rms("llama", {}, {}),
    "xverse": rms("llama", {}, {}),
    "arcee": rms("arcee", {}, {}),
    "smollm3": rms("smollm3", {}, {}),
    "granite": rms("granite", GRANITE_FIELDS, GRANITE),
    "granitemoe": rms(
        "granitemoe",
        {**GRANITE_FIELDS, "num_local_experts": 4, "num_experts_per_tok": 2},
        {**GRANITE, **EXPERTS},
    ),
    "qwen2": rms("qwen2", {}, {}),
    "qwen2-yarn": rms("qwen2", rope(**YARN_FIELDS), YARN),
    "qwen2moe": rms(
        "qwen2_moe",
        {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
        | {"shared_expert_intermediate_size": 40},
        {**EXPERTS, "expert_feed_forward_length": 24, "expert_shared_feed_forward_length": 40},
    ),
    "qwen3": rms("qwen3", {"head_dim": 8}, HEAD),
    "qwen3moe": rms(
        "qwen3_moe",
        {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "head_dim": 8}
        | {"norm_topk_prob": True},
        {**EXPERTS, **HEAD, "expert_feed_forward_length": 24},
    ),
    "phi3": rms(
        "phi3",
        {"sliding_window": 6, **rope(partial_rotary_factor=0.5)},
        {**WINDOW, "rope.dimension_count": 8},
    ),
    "phi3-wide": rms(
        "phi3",
        {"sliding_window": None, **rope(partial_rotary_factor=0.5)},
        {"rope.dimension_count": 8},
    ),
    "olmo2": rms("olmo2", {}, {}),
    "olmo2-local": rms(
        "olmo3",
        {"sliding_window": 6, "layer_types": periodic(4)}
        | {
            "rope_parameters": {
                "full_attention": {"rope_theta": 500.0, **YARN_FIELDS},
                "sliding_attention": {"rope_type": "default", "rope_theta": 500.0},
            }
        },
        {**WINDOW, **YARN},
    ),
    "olmoe": rms(
        "olmoe",
        {"num_experts": 4, "num_experts_per_tok": 2, "num_key_value_heads": 4},
        {**EXPERTS, "attention.head_count_kv": 4},
    ),
    "exaone4": rms(
        "exaone4",
        {"head_dim": 16, "sliding_window": 6, "layer_types": periodic(4)},
        {**WINDOW},
    ),
    "glm4": rms(
        "glm4",
        {"head_dim": 16, "attention_bias": True, **rope(partial_rotary_factor=0.5)},
        {"rope.dimension_count": 8},
    ),
    "glm4moe": rms(
        "glm4_moe",
        {"head_dim": 16, "use_qk_norm": True, **GROUPED_ROUTING} | rope(partial_rotary_factor=0.5),
        {**GROUPED_FACTS, "attention.key_length": 16, "rope.dimension_count": 8},
    ),
    "ernie4_5": rms("ernie4_5", {"head_dim": 8}, HEAD),
    "seed_oss": rms("seed_oss", {"head_dim": 8, "attention_bias": True}, HEAD),
    "hunyuan-dense": rms("hunyuan_v1_dense", {"head_dim": 16}, {}),
    "gpt-oss": rms(
        "gpt_oss",
        {"head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 6}
        | {"layer_types": periodic(2), **rope(**YARN_FIELDS, truncate=False)},
        {**HEAD, **EXPERTS, **WINDOW, **YARN, "expert_feed_forward_length": 48},
    ),
    "deepseek2": rms(
        "deepseek_v3",
        {**GROUPED_ROUTING, **MLA_FIELDS} | rope(**YARN_FIELDS, mscale=0.7, mscale_all_dim=0.7),
        {**GROUPED_FACTS, **MLA_FACTS, **YARN, "rope.scaling.yarn_log_multiplier": 0.07}
        | {"expert_gating_func": 2},
    ),
    "deepseek2-v2": rms(
        "deepseek_v2",
        {**GROUPED_ROUTING, **MLA_FIELDS, "q_lora_rank": None, "norm_topk_prob": False}
        | {"topk_method": "group_limited_greedy"},
        {
            key: value
            for key, value in {**GROUPED_FACTS, **MLA_FACTS, "expert_gating_func": 1}.items()
            if key not in ("attention.q_lora_rank", "expert_weights_norm")
        },
    ),
}
