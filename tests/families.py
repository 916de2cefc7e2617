"""Tiny random-weight models of the real classes, and what each layer does with positions.

The facts are stated by hand, from the papers and the model cards, never read from the code under
test. Shapes are the same everywhere unless a family says otherwise: 4 query heads over 2 key/value
heads of size 16.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from tests.oracles import LayerFacts

VOCAB_SIZE = 71
HEADS, KV_HEADS, HEAD_DIM = 4, 2, 16
HIDDEN = HEADS * HEAD_DIM
GROUPED = 2 * KV_HEADS * HEAD_DIM  # numbers cached per token and layer with grouped queries
FULL = 2 * HEADS * HEAD_DIM  # the same with one key/value head per query head

Facts = Callable[[int], Sequence[LayerFacts]]


@dataclass(frozen=True)
class Family:
    """One model class and configuration.

    Args:
        name: how tests call it.
        model_type: its name in transformers.
        facts: each layer's facts for queries that see the given number of tokens.
        fields: fields of its config.
        shapes: pairs of num_sink_tokens and window_size to test it with.
        implementations: the model's own attention implementations that are right.
    """

    name: str
    model_type: str
    facts: Facts
    fields: dict[str, Any]
    shapes: tuple[tuple[int, int], ...] = ((4, 12), (1, 5))
    implementations: tuple[str, ...] = ("eager", "sdpa")

    @property
    def rotary(self) -> bool:
        """Whether any layer turns its keys."""
        return any(layer.inv_freq is not None for layer in self.facts(0))

    def __str__(self) -> str:
        return self.name


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


def config_of(model_type: str, fields: dict[str, Any]) -> PreTrainedConfig:
    """Return a config; it gets a copy of `fields`, for configs complete what they are given."""
    return AutoConfig.for_model(model_type, **deepcopy(fields))


def with_random_weights(model: PreTrainedModel) -> PreTrainedModel:
    """Make every part of a model matter: attention neither flat nor concentrated on one token."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if "norm" in name or name.endswith(".ln_f.weight"):
            continue
        spread = 0.2 if parameter.ndim == 1 else 1.3 * parameter.shape[-1] ** -0.5
        parameter.data.normal_(0, spread, generator=generator)
    return model.eval().requires_grad_(False)


COMMON: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": HIDDEN,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


# Frequencies, in the float32 that models hold.


def frequencies(dim: int = HEAD_DIM, theta: float = 10_000.0) -> Tensor:
    """RoPE (Su et al., arXiv 2104.09864): theta^(-2i/dim)."""
    exponents = torch.arange(0, dim, 2, dtype=torch.float32) / dim
    return (1.0 / theta**exponents).double()


def dynamic_ntk(length: int, trained: int, factor: float) -> Tensor:
    """Dynamic NTK: theta grows with the text once it is longer than what was trained."""
    stretch = factor * max(length, trained) / trained - (factor - 1)
    return frequencies(theta=10_000.0 * stretch ** (HEAD_DIM / (HEAD_DIM - 2)))


def yarn(theta: float, trained: int, factor: float, truncate: bool = True) -> Tensor:
    """YaRN (Peng et al., arXiv 2309.00071, section 3.2), with 32 and 1 rotations as bounds."""

    def pair_that_turns(rotations: float) -> float:
        wavelength = trained / (rotations * 2 * math.pi)
        return HEAD_DIM * math.log(wavelength) / (2 * math.log(theta))

    low, high = pair_that_turns(32), pair_that_turns(1)
    if truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, HEAD_DIM - 1)
    ramp = ((torch.arange(HEAD_DIM // 2) - low) / (high - low)).clamp(0, 1).double()
    plain = frequencies(theta=theta)
    return (plain / factor * ramp + plain * (1 - ramp)).float().double()


def llama3(trained: int, factor: float, low: float, high: float) -> Tensor:
    """Llama 3.1: long waves are stretched, short ones kept, those between mixed."""
    plain = frequencies(theta=500_000.0)
    turns = trained * plain / (2 * math.pi)
    smooth = ((turns - low) / (high - low)).clamp(0, 1)
    return (plain * (smooth + (1 - smooth) / factor)).float().double()


def longrope(length: int) -> Tensor:
    """LongRoPE (Ding et al., arXiv 2402.13753): one factor per pair, from one of two lists."""
    factors = LONG_FACTORS if length > LONGROPE_TRAINED else SHORT_FACTORS
    return (frequencies().float() / torch.tensor(factors)).double()


LONGROPE_TRAINED = 20
SHORT_FACTORS = [1.0, 1.05, 1.1, 1.15, 1.2, 1.3, 1.4, 1.5]
LONG_FACTORS = [1.0, 1.2, 1.6, 2.0, 2.5, 3.0, 4.0, 5.0]


def alibi_slopes(num_heads: int, ratio: float = 8.0) -> Tensor:
    """ALiBi (Press et al., arXiv 2108.12409): a geometric sequence, for a power of two of heads."""
    return 2.0 ** (-ratio / num_heads * torch.arange(1, num_heads + 1, dtype=torch.float64))


# Facts that several families share.


def same(layer: LayerFacts, num_layers: int = 3) -> Facts:
    """Facts of a model whose layers are all alike."""
    return lambda cache_size: (layer,) * num_layers


def rope(inv_freq: Tensor | None = None, elements: int = GROUPED, **facts: Any) -> LayerFacts:
    inv_freq = frequencies() if inv_freq is None else inv_freq
    return LayerFacts(inv_freq=inv_freq, cached_elements=elements, **facts)


LLAMA = same(rope())
HEAD_SIZE = {"head_dim": HEAD_DIM}  # where it does not follow from the hidden size
MIXTURE = {"num_local_experts": 4, "num_experts_per_tok": 2}


def _llama(name: str, facts: Facts, **fields: Any) -> Family:
    return Family(name, "llama", facts, fields)


def _scaled(rope_type: str, theta: float = 10_000.0, **rule: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": rope_type, "rope_theta": theta} | rule}


def _hybrid(local: LayerFacts, everywhere: LayerFacts) -> Facts:
    return lambda cache_size: (local, everywhere, local)


HYBRID = {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}


def _mistral(own_window: int) -> Family:
    return Family(
        f"mistral-{own_window}",
        "mistral",
        same(rope(own_window=own_window)),
        {"sliding_window": own_window},
        shapes=((4, 9), (2, 5)),
    )


def _gemma2(own_window: int) -> Family:
    return Family(
        f"gemma2-{own_window}",
        "gemma2",
        _hybrid(rope(own_window=own_window), rope()),
        HYBRID
        | HEAD_SIZE
        | {
            "sliding_window": own_window,
            "query_pre_attn_scalar": 12,
            "attn_logit_softcapping": 2.0,
            "final_logit_softcapping": 8.0,
        },
        implementations=("eager",),
    )


def _phi3(name: str, shapes: tuple[tuple[int, int], ...]) -> Family:
    rule = {"short_factor": SHORT_FACTORS, "long_factor": LONG_FACTORS}
    return Family(
        name,
        "phi3",
        lambda cache_size: same(rope(longrope(cache_size)))(cache_size),
        {
            "original_max_position_embeddings": LONGROPE_TRAINED,
            "max_position_embeddings": 4 * LONGROPE_TRAINED,
        }
        | _scaled("longrope", original_max_position_embeddings=LONGROPE_TRAINED, **rule),
        shapes,
    )


def _deepseek(name: str, layout: str = "half", **fields: Any) -> Family:
    latent, rotary, still = 24, HEAD_DIM, 12
    return Family(
        name,
        "deepseek_v2" if "v2" in name else "deepseek_v3",
        # The rotary key is shared by all heads; V3 with rope_interleave lays it out anew first.
        same(rope(elements=latent + rotary, start=still, cached="values", layout=layout)),
        {
            "num_key_value_heads": HEADS,
            "kv_lora_rank": latent,
            "q_lora_rank": 20,
            "qk_rope_head_dim": rotary,
            "qk_nope_head_dim": still,
            "v_head_dim": 10,
            "n_routed_experts": 4,
            "n_shared_experts": 1,
            "num_experts_per_tok": 2,
            "n_group": 1,
            "topk_group": 1,
            "first_k_dense_replace": 1,
            "moe_intermediate_size": 24,
        }
        | fields,
    )


def _falcon(name: str, layer: LayerFacts, **fields: Any) -> Family:
    # Eager ALiBi of transformers 5.23 adds the bias twice, once with the mask; sdpa adds it once.
    implementations = ("sdpa",) if fields.get("alibi") else ("eager", "sdpa")
    return Family(name, "falcon", same(layer), fields, implementations=implementations)


_GPT_OSS_ROPE = yarn(150_000.0, trained=64, factor=4.0, truncate=False)

_ALL = (
    _llama("llama", LLAMA),
    _llama(
        "llama3",
        same(rope(llama3(64, 8.0, 1.0, 4.0))),
        **_scaled(
            "llama3",
            500_000.0,
            factor=8.0,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            original_max_position_embeddings=64,
        ),
    ),
    _llama("llama-linear", same(rope(frequencies() / 4)), **_scaled("linear", factor=4.0)),
    Family(
        "llama-dynamic",
        "llama",
        lambda cache_size: same(rope(dynamic_ntk(cache_size, 10, 2.0)))(cache_size),
        {"max_position_embeddings": 10} | _scaled("dynamic", factor=2.0),
        shapes=((4, 12), (1, 5)),
    ),
    _llama(
        "llama-yarn",
        same(rope(yarn(10_000.0, 64, 4.0))),
        **_scaled("yarn", factor=4.0, attention_factor=1.2, original_max_position_embeddings=64),
    ),
    _mistral(5),
    _mistral(9),
    _mistral(16),
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
    _gemma2(6),
    _gemma2(14),
    Family(
        "gemma3",
        "gemma3_text",
        _hybrid(rope(own_window=6), rope(frequencies(theta=1_000_000.0) / 8)),
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
    _phi3("phi3-short", ((4, 12),)),
    _phi3("phi3-long", ((4, 18),)),
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
        _hybrid(
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
        _hybrid(rope(_GPT_OSS_ROPE, own_window=6), rope(_GPT_OSS_ROPE)),
        HYBRID
        | MIXTURE
        | HEAD_SIZE
        | {"sliding_window": 6}
        | _scaled(
            "yarn", 150_000.0, factor=4.0, truncate=False, original_max_position_embeddings=64
        ),
        implementations=("eager",),
    ),
    _deepseek("deepseek-v3"),
    _deepseek("deepseek-v3-half", rope_interleave=False),
    # Its keys stay interleaved.
    _deepseek("deepseek-v2", layout="interleaved", topk_method="greedy"),
    _falcon("falcon", rope(elements=2 * HEAD_DIM)),
    _falcon("falcon-new", rope(), new_decoder_architecture=True, num_kv_heads=KV_HEADS),
    _falcon(
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
