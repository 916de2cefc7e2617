"""Tiny random-weight models of the real classes, and what each layer does with positions.

The facts are stated by hand, from the papers and the model cards, never read from the code under
test.
"""

from __future__ import annotations

from functools import cache

import torch
import transformers
from transformers import AutoModelForCausalLM, PreTrainedModel

from tests.reference.family import (
    COMMON,
    FULL,
    GROUPED,
    HEAD_DIM,
    HEADS,
    HIDDEN,
    HYBRID,
    KV_HEADS,
    Family,
    config_of,
    hybrid,
    same,
    with_random_weights,
)
from tests.reference.family_builders import (
    HEAD_SIZE,
    LLAMA,
    MIXTURE,
    deepseek_family,
    falcon_family,
    gemma2_family,
    llama_family,
    mistral_family,
    phi3_family,
    rope,
    scaled_rope,
)
from tests.reference.frequencies import (
    alibi_slopes,
    dynamic_ntk,
    frequencies,
    llama3,
    yarn,
)
from tests.reference.layer_facts import LayerFacts


@cache
def model_of(
    name: str, dtype: torch.dtype = torch.float64, implementation: str | None = None
) -> PreTrainedModel:
    """Return a family's model; the weights are the same for every dtype and implementation."""
    family = FAMILIES[name]
    config = config_of(family.model_type, COMMON | family.fields)
    implementation = implementation or family.implementations[-1]
    transformers.logging.set_verbosity_error()
    with torch.random.fork_rng():
        model = AutoModelForCausalLM.from_config(
            config,
            attn_implementation=implementation,
            experts_implementation="eager",  # the default has no kernel for float64
        )
    return with_random_weights(model).to(dtype)


_GPT_OSS_ROPE = yarn(150_000.0, trained=64, factor=4.0, truncate=False)

_ALL = (
    llama_family("llama", LLAMA),
    llama_family(
        "llama3",
        same(rope(llama3(64, 8.0, 1.0, 4.0))),
        **scaled_rope(
            "llama3",
            500_000.0,
            factor=8.0,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            original_max_position_embeddings=64,
        ),
    ),
    llama_family(
        "llama-linear", same(rope(frequencies() / 4)), **scaled_rope("linear", factor=4.0)
    ),
    Family(
        "llama-dynamic",
        "llama",
        lambda cache_size: same(rope(dynamic_ntk(cache_size, 10, 2.0)))(cache_size),
        {"max_position_embeddings": 10} | scaled_rope("dynamic", factor=2.0),
        shapes=((4, 12), (1, 5)),
    ),
    llama_family(
        "llama-yarn",
        same(rope(yarn(10_000.0, 64, 4.0))),
        **scaled_rope(
            "yarn", factor=4.0, attention_factor=1.2, original_max_position_embeddings=64
        ),
    ),
    mistral_family(5),
    mistral_family(9),
    mistral_family(16),
    Family("mixtral", "mixtral", LLAMA, MIXTURE),
    Family("qwen2", "qwen2", LLAMA, {}),
    Family(
        "qwen2-moe",
        "qwen2_moe",
        LLAMA,
        {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
        | {"shared_expert_intermediate_size": 24},
    ),
    Family("qwen3", "qwen3", LLAMA, HEAD_SIZE | {"hidden_size": 48}),
    Family(
        "qwen3-moe",
        "qwen3_moe",
        LLAMA,
        HEAD_SIZE | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24},
    ),
    gemma2_family(6),
    gemma2_family(14),
    Family(
        "gemma3",
        "gemma3_text",
        hybrid(rope(own_window=6), rope(frequencies(theta=1_000_000.0) / 8)),
        HYBRID
        | HEAD_SIZE
        | {
            "sliding_window": 6,
            "query_pre_attn_scalar": 12,
            "rope_parameters": {
                "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
                "full_attention": {
                    "rope_type": "linear",
                    "factor": 8.0,
                    "rope_theta": 1_000_000.0,
                },
            },
        },
    ),
    phi3_family("phi3-short", ((4, 12),)),
    phi3_family("phi3-long", ((4, 18),)),
    Family(
        "phi",
        "phi",
        same(rope(frequencies(HEAD_DIM // 2))),
        {"partial_rotary_factor": 0.5},
    ),
    Family(
        "stablelm",
        "stablelm",
        same(rope(frequencies(HEAD_DIM // 4))),
        {"partial_rotary_factor": 0.25},
    ),
    Family(
        "gpt-neox",
        "gpt_neox",
        same(rope(frequencies(HEAD_DIM // 2), elements=FULL)),
        {"rotary_pct": 0.5},
    ),
    Family(
        "gptj",
        "gptj",
        same(rope(frequencies(8), elements=FULL, layout="interleaved")),
        {"rotary_dim": 8, "n_inner": 48},
        implementations=("eager",),
    ),
    Family("cohere", "cohere", same(rope(layout="interleaved")), {}),
    Family(
        "cohere2",
        "cohere2",
        hybrid(
            rope(layout="interleaved", own_window=6),
            LayerFacts(cached_elements=GROUPED),
        ),
        HYBRID | {"sliding_window": 6},
    ),
    Family(
        "glm4",
        "glm4",
        same(rope(frequencies(HEAD_DIM // 2), layout="interleaved")),
        HEAD_SIZE | {"partial_rotary_factor": 0.5},
    ),
    Family("olmo2", "olmo2", LLAMA, {}),
    Family("olmoe", "olmoe", LLAMA, {"num_experts": 4, "num_experts_per_tok": 2}),
    Family("granite", "granite", LLAMA, {"attention_multiplier": 0.3, "logits_scaling": 2.0}),
    Family("granite-moe", "granitemoe", LLAMA, MIXTURE | {"attention_multiplier": 0.3}),
    Family(
        "smollm3",
        "smollm3",
        lambda cache_size: (rope(), LayerFacts(cached_elements=GROUPED), rope()),
        {"no_rope_layers": [1, 0, 1]},
    ),
    Family("starcoder2", "starcoder2", LLAMA, {}),
    Family(
        "gpt-oss",
        "gpt_oss",
        hybrid(rope(_GPT_OSS_ROPE, own_window=6), rope(_GPT_OSS_ROPE)),
        HYBRID
        | MIXTURE
        | HEAD_SIZE
        | {"sliding_window": 6}
        | scaled_rope(
            "yarn", 150_000.0, factor=4.0, truncate=False, original_max_position_embeddings=64
        ),
        implementations=("eager",),
    ),
    deepseek_family("deepseek-v3"),
    deepseek_family("deepseek-v3-half", rope_interleave=False),
    # Its keys stay interleaved.
    deepseek_family("deepseek-v2", layout="interleaved", topk_method="greedy"),
    falcon_family("falcon", rope(elements=2 * HEAD_DIM)),
    falcon_family("falcon-new", rope(), new_decoder_architecture=True, num_kv_heads=KV_HEADS),
    falcon_family(
        "falcon-alibi",
        LayerFacts(slopes=alibi_slopes(HEADS) * HEAD_DIM**-0.5, cached_elements=FULL),
        alibi=True,
        multi_query=False,
        parallel_attn=False,
    ),
    Family(
        "mpt",
        "mpt",
        same(LayerFacts(slopes=alibi_slopes(HEADS), cached_elements=FULL)),
        {"d_model": HIDDEN, "n_heads": HEADS, "n_layers": 3, "expansion_ratio": 1}
        | {"attn_config": {"clip_qkv": 2.0, "softmax_scale": 0.3}},
        implementations=("eager",),
    ),
    Family(
        "bloom",
        "bloom",
        same(LayerFacts(slopes=alibi_slopes(HEADS), cached_elements=FULL)),
        {"n_head": HEADS, "n_layer": 3},
        implementations=("eager",),
    ),
)
FAMILIES = {family.name: family for family in _ALL}
