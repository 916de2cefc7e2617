"""Fields of a configuration that only some families have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from streamingllm.models.gguf.metadata import ArchitectureMetadata
from streamingllm.models.gguf.rope import rope_parameters, unscaled_rope
from streamingllm.models.gguf.windows import WINDOW, layer_types, window

Metadata = ArchitectureMetadata
Fields = Mapping[str, Any]
_SIGMOID = 2  # of `expert_gating_func`


def llama(metadata: Metadata) -> Fields:
    """Return Llama's fields, or Mixtral's if the file has experts."""
    if metadata.has("expert_count") and metadata.integer("expert_count", 0):
        return {
            "model_type": "mixtral",
            "num_local_experts": metadata.integer("expert_count"),
            "num_experts_per_tok": metadata.integer("expert_used_count"),
            "sliding_window": None,
        }
    return {
        "attention_bias": metadata.has_tensor("attn_q.bias"),
        "mlp_bias": metadata.has_tensor("ffn_down.bias"),
    }


def mistral3(metadata: Metadata) -> Fields:
    """Return Ministral 3's fields, or Llama's if queries are not scaled by their position."""
    beta = metadata.number("attention.temperature_scale", 0.0)
    if beta == 0.0:
        return llama(metadata)
    rope = rope_parameters(metadata)
    if rope["rope_type"] != "yarn":
        raise metadata.missing("rope.scaling.type", rope["rope_type"])
    scale = metadata.number("rope.scaling.yarn_log_multiplier", 1.0)
    rope |= {"mscale": 1.0, "mscale_all_dim": scale, "llama_4_scaling_beta": beta}
    return {"model_type": "ministral3", "sliding_window": None, "rope_parameters": rope}


def smollm3(metadata: Metadata) -> Fields:
    """Return SmolLM3's fields; every fourth layer has no positions."""
    layers = range(metadata.num_layers)
    return {
        **llama(metadata),
        "no_rope_layers": [int((layer + 1) % 4 != 0) for layer in layers],
        "use_sliding_window": False,
        "layer_types": ["full_attention" for _ in layers],
    }


def granite(metadata: Metadata) -> Fields:
    """Return the factors of Granite, dense or with experts."""
    scale = metadata.head_size**-0.5
    experts = {}
    if metadata.integer("expert_count", 0):  # dense models of Granite 4 state zero
        experts = {
            "num_local_experts": metadata.integer("expert_count"),
            "num_experts_per_tok": metadata.integer("expert_used_count"),
        }
    return {
        "attention_bias": metadata.has_tensor("attn_q.bias"),
        "embedding_multiplier": metadata.number("embedding_scale", 1.0),
        "residual_multiplier": metadata.number("residual_scale", 1.0),
        "attention_multiplier": metadata.number("attention.scale", scale),
        "logits_scaling": metadata.number("logit_scale", 1.0),
        **experts,
    }


def no_window(metadata: Metadata) -> Fields:
    """Return the fields of a family whose window is never used."""
    return {"use_sliding_window": False}


def qwen2moe(metadata: Metadata) -> Fields:
    """Return Qwen 2 MoE's fields."""
    shared = metadata.integer("expert_shared_feed_forward_length", 0)
    return {
        **_experts(metadata),
        "use_sliding_window": False,
        "norm_topk_prob": metadata.flag("expert_weights_norm", False),
        "shared_expert_intermediate_size": shared or metadata.rows("ffn_gate_shexp.weight"),
        "num_experts": metadata.integer("expert_count"),
    }


def qwen3(metadata: Metadata) -> Fields:
    """Return Qwen 3's fields."""
    return {"use_sliding_window": False, "attention_bias": metadata.has_tensor("attn_q.bias")}


def qwen3moe(metadata: Metadata) -> Fields:
    """Return Qwen 3 MoE's fields."""
    return {
        **qwen3(metadata),
        **_experts(metadata),
        "norm_topk_prob": metadata.flag("expert_weights_norm", True),
        "num_experts": metadata.integer("expert_count"),
    }


def _experts(metadata: Metadata) -> dict[str, Any]:
    width = metadata.integer("expert_feed_forward_length", 0)
    return {
        "num_experts_per_tok": metadata.integer("expert_used_count"),
        "moe_intermediate_size": width or metadata.rows("ffn_gate_exps.weight"),
    }


def phi3(metadata: Metadata) -> Fields:
    """Return Phi 3's fields."""
    context = metadata.integer("context_length")
    return {
        "sliding_window": window(metadata),
        "original_max_position_embeddings": metadata.integer(
            "rope.scaling.original_context_length", context
        ),
    }


def olmo(metadata: Metadata) -> Fields:
    """Return OLMo's fields."""
    return {"clip_qkv": metadata.number("attention.clamp_kqv", 0.0) or None}


def olmo2(metadata: Metadata) -> Fields:
    """Return OLMo 2's fields, or OLMo 3's if some layers are local."""
    if not metadata.has(WINDOW):
        return {}
    return {
        "model_type": "olmo3",
        "sliding_window": metadata.integer(WINDOW),
        "layer_types": layer_types(metadata, 4),
        "rope_parameters": {
            "full_attention": rope_parameters(metadata),
            "sliding_attention": unscaled_rope(metadata),
        },
    }


def olmoe(metadata: Metadata) -> Fields:
    """Return OLMoE's fields."""
    return {
        "num_experts": metadata.integer("expert_count"),
        "num_experts_per_tok": metadata.integer("expert_used_count"),
        "norm_topk_prob": metadata.flag("expert_weights_norm", False),
        "clip_qkv": metadata.number("attention.clamp_kqv", 0.0) or None,
    }


def exaone4(metadata: Metadata) -> Fields:
    """Return EXAONE 4's fields; the small models have no local layers."""
    size = window(metadata)
    kinds = layer_types(metadata, 4) if size else ["full_attention"] * metadata.num_layers
    return {"sliding_window": size, "layer_types": kinds}


def glm4(metadata: Metadata) -> Fields:
    """Return GLM 4's fields."""
    return {"attention_bias": metadata.has_tensor("attn_q.bias")}


def glm4moe(metadata: Metadata) -> Fields:
    """Return GLM 4 MoE's fields."""
    return {
        **_experts(metadata),
        **routing(metadata),
        "attention_bias": metadata.has_tensor("attn_q.bias"),
        "use_qk_norm": metadata.has_tensor("attn_q_norm.weight"),
    }


def routing(metadata: Metadata) -> dict[str, Any]:
    """Return the fields of experts that are chosen in groups, as DeepSeek's are."""
    return {
        "n_routed_experts": metadata.integer("expert_count"),
        "n_shared_experts": metadata.integer("expert_shared_count", 0),
        "first_k_dense_replace": metadata.integer("leading_dense_block_count", 0),
        "routed_scaling_factor": metadata.number("expert_weights_scale", 1.0),
        "norm_topk_prob": metadata.flag("expert_weights_norm", False),
        "n_group": metadata.integer("expert_group_count", 1),
        "topk_group": metadata.integer("expert_group_used_count", 1),
    }


def ernie(metadata: Metadata) -> Fields:
    """Return Ernie 4.5's fields."""
    return {"use_bias": metadata.has_tensor("attn_q.bias")}


def seed_oss(metadata: Metadata) -> Fields:
    """Return Seed-OSS's fields."""
    return {
        "attention_bias": metadata.has_tensor("attn_q.bias"),
        "attention_out_bias": metadata.has_tensor("attn_output.bias"),
    }


def gpt_oss(metadata: Metadata) -> Fields:
    """Return gpt-oss's fields; its rotary ramp has no whole ends, as the original's."""
    rope = rope_parameters(metadata)
    return {
        "num_local_experts": metadata.integer("expert_count"),
        "num_experts_per_tok": metadata.integer("expert_used_count"),
        "intermediate_size": metadata.integer("expert_feed_forward_length"),
        "sliding_window": metadata.integer(WINDOW),
        "layer_types": layer_types(metadata, 2),
        "rope_parameters": rope | ({"truncate": False} if rope["rope_type"] == "yarn" else {}),
    }


def deepseek2(metadata: Metadata) -> Fields:
    """Return DeepSeek's fields, of version 3 if experts are chosen by sigmoids."""
    is_v3 = metadata.integer("expert_gating_func", 1) == _SIGMOID
    is_absorbed = metadata.has("attention.key_length_mla")
    key_size = metadata.integer("attention.key_length" + ("_mla" if is_absorbed else ""))
    rotated = metadata.integer("rope.dimension_count")
    heads = metadata.integer("attention.head_count")
    rope = rope_parameters(metadata)
    rope.pop("partial_rotary_factor", None)
    if metadata.has("rope.scaling.yarn_log_multiplier"):
        scale = metadata.number("rope.scaling.yarn_log_multiplier") / 0.1
        rope |= {"mscale": scale, "mscale_all_dim": scale}
    return {
        **routing(metadata),
        **_experts(metadata),
        "model_type": "deepseek_v3" if is_v3 else "deepseek_v2",
        "num_key_value_heads": heads,
        "q_lora_rank": metadata.integer("attention.q_lora_rank", 0) or None,
        "kv_lora_rank": metadata.integer("attention.kv_lora_rank"),
        "qk_rope_head_dim": rotated,
        "qk_nope_head_dim": key_size - rotated,
        "v_head_dim": metadata.integer("attention.value_length" + ("_mla" if is_absorbed else "")),
        "head_dim": rotated,
        "topk_method": "group_limited_greedy" if metadata.has("expert_group_count") else "greedy",
        "rope_parameters": rope,
    }
