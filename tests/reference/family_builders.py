"""Builders of families that come in several configurations, and the facts that families share."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from tests.reference.family import (
    GROUPED,
    HEAD_DIM,
    HEADS,
    HYBRID,
    Facts,
    Family,
    hybrid,
    same,
)
from tests.reference.frequencies import (
    LONG_FACTORS,
    LONGROPE_TRAINED,
    SHORT_FACTORS,
    frequencies,
    longrope,
)
from tests.reference.layer_facts import LayerFacts


def rope(inv_freq: Tensor | None = None, elements: int = GROUPED, **facts: Any) -> LayerFacts:
    inv_freq = frequencies() if inv_freq is None else inv_freq
    return LayerFacts(inv_freq=inv_freq, cached_elements=elements, **facts)


LLAMA = same(rope())
HEAD_SIZE = {"head_dim": HEAD_DIM}  # where it does not follow from the hidden size
MIXTURE = {"num_local_experts": 4, "num_experts_per_tok": 2}


def llama_family(name: str, facts: Facts, **fields: Any) -> Family:
    return Family(name, "llama", facts, fields)


def scaled_rope(rope_type: str, theta: float = 10_000.0, **rule: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": rope_type, "rope_theta": theta} | rule}


def mistral_family(own_window: int) -> Family:
    return Family(
        f"mistral-{own_window}",
        "mistral",
        same(rope(own_window=own_window)),
        {"sliding_window": own_window},
        shapes=((4, 9), (2, 5)),
    )


def gemma2_family(own_window: int) -> Family:
    return Family(
        f"gemma2-{own_window}",
        "gemma2",
        hybrid(rope(own_window=own_window), rope()),
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


def phi3_family(name: str, shapes: tuple[tuple[int, int], ...]) -> Family:
    rule = {"short_factor": SHORT_FACTORS, "long_factor": LONG_FACTORS}
    return Family(
        name,
        "phi3",
        lambda cache_size: same(rope(longrope(cache_size)))(cache_size),
        {
            "original_max_position_embeddings": LONGROPE_TRAINED,
            "max_position_embeddings": 4 * LONGROPE_TRAINED,
        }
        | scaled_rope("longrope", original_max_position_embeddings=LONGROPE_TRAINED, **rule),
        shapes,
    )


def deepseek_family(name: str, layout: str = "half", **fields: Any) -> Family:
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


def falcon_family(name: str, layer: LayerFacts, **fields: Any) -> Family:
    # Eager ALiBi of transformers 5.23 adds the bias twice, once with the mask; sdpa adds it once.
    implementations = ("sdpa",) if fields.get("alibi") else ("eager", "sdpa")
    return Family(name, "falcon", same(layer), fields, implementations=implementations)
