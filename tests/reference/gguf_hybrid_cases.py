"""Cases of architectures that mix attention with layers that carry a state."""

from __future__ import annotations

from tests.reference.gguf_case import BASE, EXPERTS, RMS, GgufFamilyCase, rope

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
}
