"""GGUF files of small models without meaning, of every architecture that is read by name.

The facts are stated by hand, in the names that llama.cpp's converter writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from tests.reference.gguf_states import gguf_tensors

_Facts = Mapping[str, Any]


@dataclass(frozen=True)
class GgufFamilyCase:
    """State one architecture twice: as a configuration and as metadata of a file.

    Args:
        model_type: of transformers.
        fields: of the configuration, beyond the common ones.
        facts: of the file, beyond the common ones, without the prefix.
        tied: whether the output layer can only be the embedding; None for either.
    """

    model_type: str
    fields: _Facts = field(default_factory=dict)
    facts: _Facts = field(default_factory=dict)
    tied: bool | None = None


COMMON_FIELDS: _Facts = {
    "vocab_size": 72,
    "num_hidden_layers": 4,
    "hidden_size": 64,
    "intermediate_size": 48,
    "max_position_embeddings": 256,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
COMMON_FACTS: _Facts = {
    "block_count": 4,
    "embedding_length": 64,
    "feed_forward_length": 48,
    "context_length": 256,
    "attention.head_count": 4,
    "attention.head_count_kv": 2,
}
_RMS = {"attention.layer_norm_rms_epsilon": 1e-3}
_RMS_FIELD = {"rms_norm_eps": 1e-3}
_LAYER_NORM = {"attention.layer_norm_epsilon": 1e-3}


def _rope(**fields: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0, **fields}}


_BASE = {"rope.freq_base": 500.0}
_HEAD = {"attention.key_length": 8, "attention.value_length": 8, "rope.dimension_count": 8}
_LINEAR = {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}
_YARN = {
    "rope.scaling.type": "yarn",
    "rope.scaling.factor": 8.0,
    "rope.scaling.original_context_length": 32,
}
_YARN_FIELDS = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 32}
_EXPERTS = {"expert_count": 4, "expert_used_count": 2}
_WINDOW = {"attention.sliding_window": 6}
_LOCAL_THIRD = ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"]


def _periodic(period: int) -> list[str]:
    kinds = ("sliding_attention", "full_attention")
    return [kinds[(layer + 1) % period == 0] for layer in range(4)]


def _rms(model_type: str, fields: _Facts, facts: _Facts, **more: Any) -> GgufFamilyCase:
    return GgufFamilyCase(
        model_type, {**_RMS_FIELD, **_rope(), **fields}, {**_RMS, **_BASE, **facts}, **more
    )


def _norm(model_type: str, eps: str, fields: _Facts, facts: _Facts, **more: Any) -> GgufFamilyCase:
    return GgufFamilyCase(
        model_type,
        {eps: 1e-3, **_rope(), **fields},
        {**_LAYER_NORM, **_BASE, **facts},
        **more,
    )


_GRANITE_FIELDS = {
    "embedding_multiplier": 3.0,
    "residual_multiplier": 0.5,
    "attention_multiplier": 0.2,
    "logits_scaling": 2.0,
}
_GRANITE = {
    "embedding_scale": 3.0,
    "residual_scale": 0.5,
    "attention.scale": 0.2,
    "logit_scale": 2.0,
}
_GROUPED_ROUTING = {
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
_GROUPED_FACTS = {
    **_EXPERTS,
    "expert_shared_count": 1,
    "leading_dense_block_count": 1,
    "expert_weights_scale": 1.5,
    "expert_weights_norm": True,
    "expert_group_count": 2,
    "expert_group_used_count": 1,
    "expert_feed_forward_length": 24,
}
_MLA_FIELDS = {
    "num_key_value_heads": 4,
    "kv_lora_rank": 16,
    "q_lora_rank": 12,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 10,
    "v_head_dim": 14,
    "head_dim": 8,
}
_MLA_FACTS = {
    "attention.head_count_kv": 1,
    "attention.kv_lora_rank": 16,
    "attention.q_lora_rank": 12,
    "attention.key_length": 24,
    "attention.value_length": 16,
    "attention.key_length_mla": 18,
    "attention.value_length_mla": 14,
    "rope.dimension_count": 8,
}

GGUF_CASES: dict[str, GgufFamilyCase] = {
    "llama": _rms("llama", {"head_dim": 8}, _HEAD),
    "llama-linear": _rms("llama", _rope(rope_type="linear", factor=4.0), _LINEAR),
    "llama-yarn": _rms("llama", _rope(**_YARN_FIELDS), _YARN),
    "llama-bias": _rms("llama", {"attention_bias": True, "mlp_bias": True}, {}),
    "llama-experts": _rms(
        "mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2}, {**_EXPERTS}
    ),
    "internlm2": _rms("llama", {}, {}),
    "xverse": _rms("llama", {}, {}),
    "arcee": _rms("arcee", {}, {}),
    "smollm3": _rms("smollm3", {}, {}),
    "granite": _rms("granite", _GRANITE_FIELDS, _GRANITE),
    "granitemoe": _rms(
        "granitemoe",
        {**_GRANITE_FIELDS, "num_local_experts": 4, "num_experts_per_tok": 2},
        {**_GRANITE, **_EXPERTS},
    ),
    "qwen2": _rms("qwen2", {}, {}),
    "qwen2-yarn": _rms("qwen2", _rope(**_YARN_FIELDS), _YARN),
    "qwen2moe": _rms(
        "qwen2_moe",
        {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
        | {"shared_expert_intermediate_size": 40},
        {**_EXPERTS, "expert_feed_forward_length": 24, "expert_shared_feed_forward_length": 40},
    ),
    "qwen3": _rms("qwen3", {"head_dim": 8}, _HEAD),
    "qwen3moe": _rms(
        "qwen3_moe",
        {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "head_dim": 8}
        | {"norm_topk_prob": True},
        {**_EXPERTS, **_HEAD, "expert_feed_forward_length": 24},
    ),
    "phi3": _rms(
        "phi3",
        {"sliding_window": 6, **_rope(partial_rotary_factor=0.5)},
        {**_WINDOW, "rope.dimension_count": 8},
    ),
    "gemma": _rms("gemma", {"head_dim": 8}, _HEAD, tied=True),
    "gemma2": _rms(
        "gemma2",
        {"head_dim": 8, "sliding_window": 6, "query_pre_attn_scalar": 8}
        | {"attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0},
        {**_HEAD, **_WINDOW, "attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0},
        tied=True,
    ),
    "gemma3": _rms(
        "gemma3_text",
        {"head_dim": 8, "sliding_window": 6, "query_pre_attn_scalar": 8}
        | {"layer_types": _LOCAL_THIRD}
        | {
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 500.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
            }
        },
        {**_HEAD, **_WINDOW, **_LINEAR, "rope.freq_base_swa": 100.0}
        | {"attention.sliding_window_pattern": [True, True, False, True]},
    ),
    "olmo2": _rms("olmo2", {}, {}),
    "olmo2-local": _rms("olmo3", {"sliding_window": 6, "layer_types": _periodic(4)}, {**_WINDOW}),
    "olmoe": _rms("olmoe", {"num_experts": 4, "num_experts_per_tok": 2}, {**_EXPERTS}),
    "exaone4": _rms(
        "exaone4",
        {"head_dim": 8, "sliding_window": 6, "layer_types": _periodic(4)},
        {**_HEAD, **_WINDOW},
    ),
    "glm4": _rms(
        "glm4",
        {"head_dim": 16, "attention_bias": True, **_rope(partial_rotary_factor=0.5)},
        {"rope.dimension_count": 8},
    ),
    "glm4moe": _rms(
        "glm4_moe",
        {"head_dim": 16, "use_qk_norm": True, **_GROUPED_ROUTING}
        | _rope(partial_rotary_factor=0.5),
        {**_GROUPED_FACTS, "attention.key_length": 16, "rope.dimension_count": 8},
    ),
    "ernie4_5": _rms("ernie4_5", {"head_dim": 8}, _HEAD),
    "seed_oss": _rms("seed_oss", {"head_dim": 8, "attention_bias": True}, _HEAD),
    "hunyuan-dense": _rms("hunyuan_v1_dense", {"head_dim": 16}, {}),
    "gpt-oss": _rms(
        "gpt_oss",
        {"head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 6}
        | {"layer_types": _periodic(2), **_rope(**_YARN_FIELDS, truncate=False)},
        {**_HEAD, **_EXPERTS, **_WINDOW, **_YARN, "expert_feed_forward_length": 48},
    ),
    "deepseek2": _rms(
        "deepseek_v3",
        {**_GROUPED_ROUTING, **_MLA_FIELDS} | _rope(**_YARN_FIELDS, mscale=0.7, mscale_all_dim=0.7),
        {**_GROUPED_FACTS, **_MLA_FACTS, **_YARN, "rope.scaling.yarn_log_multiplier": 0.07}
        | {"expert_gating_func": 2},
    ),
    "deepseek2-v2": _rms(
        "deepseek_v2",
        {**_GROUPED_ROUTING, **_MLA_FIELDS, "q_lora_rank": None, "norm_topk_prob": False}
        | {"topk_method": "group_limited_greedy"},
        {
            key: value
            for key, value in {**_GROUPED_FACTS, **_MLA_FACTS, "expert_gating_func": 1}.items()
            if key not in ("attention.q_lora_rank", "expert_weights_norm")
        },
    ),
    "starcoder2": _norm("starcoder2", "norm_epsilon", {}, {}),
    "stablelm": _norm(
        "stablelm",
        "layer_norm_eps",
        {"use_qkv_bias": True, **_rope(partial_rotary_factor=0.5)},
        {"rope.dimension_count": 8},
    ),
    "stablelm-parallel": _norm(
        "stablelm",
        "layer_norm_eps",
        {"use_parallel_residual": True, **_rope(partial_rotary_factor=0.5)},
        {"rope.dimension_count": 8},
    ),
    "phi2": _norm(
        "phi",
        "layer_norm_eps",
        _rope(partial_rotary_factor=0.5),
        {"rope.dimension_count": 8},
        tied=False,
    ),
    "command-r": _norm(
        "cohere", "layer_norm_eps", {"logit_scale": 0.5}, {"logit_scale": 0.5}, tied=True
    ),
    "command-r-norms": _norm(
        "cohere",
        "layer_norm_eps",
        {"logit_scale": 0.5, "use_qk_norm": True},
        {"logit_scale": 0.5},
        tied=True,
    ),
    "cohere2": _norm(
        "cohere2",
        "layer_norm_eps",
        {"logit_scale": 0.5, "head_dim": 8, "sliding_window": 6, "layer_types": _periodic(4)},
        {"logit_scale": 0.5, **_HEAD, **_WINDOW},
        tied=True,
    ),
    "olmo": GgufFamilyCase(
        "olmo",
        {"clip_qkv": 0.5, **_rope()},
        {"attention.layer_norm_epsilon": 1e-5, "attention.clamp_kqv": 0.5, **_BASE},
    ),
    "nemotron": _norm(
        "nemotron",
        "norm_eps",
        {"head_dim": 16, **_rope(partial_rotary_factor=0.5)},
        {"rope.dimension_count": 8},
    ),
    "falcon": _norm(
        "falcon",
        "layer_norm_epsilon",
        {"multi_query": True, "new_decoder_architecture": False, "ffn_hidden_size": 48}
        | {"alibi": False, "parallel_attn": True, "bias": False},
        {"attention.head_count_kv": 1},
    ),
    "falcon-40b": _norm(
        "falcon",
        "layer_norm_epsilon",
        {"new_decoder_architecture": True, "num_kv_heads": 2, "ffn_hidden_size": 48}
        | {"alibi": False, "parallel_attn": True, "bias": False},
        {},
    ),
    "bloom": GgufFamilyCase(
        "bloom",
        {"n_layer": 4, "n_head": 4, "layer_norm_epsilon": 1e-3},
        {**_LAYER_NORM, "feed_forward_length": 256, "attention.head_count_kv": 4},
    ),
    "gptneox": _norm(
        "gpt_neox",
        "layer_norm_eps",
        _rope(partial_rotary_factor=0.5),
        {"rope.dimension_count": 8, "use_parallel_residual": True, "attention.head_count_kv": 4},
    ),
    "mpt": GgufFamilyCase(
        "mpt",
        {"d_model": 64, "n_layers": 4, "n_heads": 4, "expansion_ratio": 4, "max_seq_len": 256}
        | {"attn_config": {"alibi_bias_max": 6, "clip_qkv": 0.5}, "layer_norm_epsilon": 1e-5},
        {"attention.layer_norm_epsilon": 1e-5, "feed_forward_length": 256}
        | {"attention.max_alibi_bias": 6.0, "attention.clamp_kqv": 0.5},
        tied=True,
    ),
    "gpt2": GgufFamilyCase(
        "gpt2",
        {"n_embd": 64, "n_layer": 4, "n_head": 4, "n_positions": 256, "n_inner": 48}
        | {"layer_norm_epsilon": 1e-3},
        dict(_LAYER_NORM),
    ),
}


def architecture_of(case: str) -> str:
    """Return the architecture that a case belongs to."""
    known = set(gguf.MODEL_ARCH_NAMES.values())
    return case if case in known else case.rsplit("-", 1)[0]


def write_family_gguf(
    path: Path, case: str, *, tied: bool = False, split_tensors: int = 0
) -> PreTrainedModel:
    """Write the file of a case with random weights and return the model that it is of."""
    stated, architecture = GGUF_CASES[case], architecture_of(case)
    tied = tied if stated.tied is None else stated.tied
    fields = {**COMMON_FIELDS, **stated.fields, "tie_word_embeddings": tied}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = AutoConfig.for_model(stated.model_type, **fields)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config).eval()
        for name, parameter in model.named_parameters():
            centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            parameter.data.normal_(centre, 0.25)
        for name, buffer in model.named_buffers():
            if "e_score_correction_bias" in name:
                buffer.normal_()
    writer = gguf.GGUFWriter(path, architecture, split_max_tensors=split_tensors)
    writer.add_name("small")
    for role in ("bos", "eos", "pad"):
        getattr(writer, f"add_{role}_token_id")(COMMON_FIELDS[f"{role}_token_id"])
    for key, value in {**COMMON_FACTS, **stated.facts}.items():
        _add(writer, f"{architecture}.{key}", value)
    for name, values in gguf_tensors(model, architecture).items():
        writer.add_tensor(name, values.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)
