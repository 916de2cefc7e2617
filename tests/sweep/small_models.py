"""Small models of every class that transformers maps, made from default configurations.

Each number of a default configuration that only makes a model large is replaced by a small one. A
family gets fields of its own where that is not enough; see `fields.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
import transformers
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
)

from tests.reference.family import with_random_weights
from tests.sweep.fields import FIELDS, VARIANTS

CAUSAL = tuple(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
MULTIMODAL = tuple(
    name for name in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES if name not in CAUSAL
)
VOCAB_SIZE = 97
OWN_WINDOW = 10
TEXT = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 64,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 4096,
    "sliding_window": OWN_WINDOW,
    "attention_window": OWN_WINDOW,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "moe_num_experts": 4,
    "num_experts_per_tok": 2,
    "num_experts_per_token": 2,
    "moe_k": 2,
    "n_group": 1,
    "topk_group": 1,
    "moe_intermediate_size": 24,
    "shared_expert_intermediate_size": 24,
    "moe_shared_expert_intermediate_size": 24,
    "shared_intermediate_size": 24,
    "kv_lora_rank": 24,
    "q_lora_rank": 20,
    "qk_rope_head_dim": 16,
    "qk_nope_head_dim": 16,
    "v_head_dim": 16,
    "index_n_heads": 2,
    "index_head_dim": 32,
    "index_topk": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
MROPE_SECTION = [2, 3, 3]  # half the size of a head
_TOWER = {
    "hidden_size": 32,
    "embed_dim": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "depth": 1,
    "num_heads": 2,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "num_layers": 1,
}
_TEXT_CONFIGS = ("text_config", "llm_config", "decoder", "thinker_config")
_NUM_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")


def small_model(name: str, only: str | None = None) -> PreTrainedModel:
    """Return a small model of a family's causal or image-text class in float64.

    Args:
        name: of a family, or of one of `VARIANTS`.
        only: a kind of layer; the model then has one layer of it. None for all layers.
    """
    transformers.logging.set_verbosity_error()
    config = small_config(name, only)
    is_causal = VARIANTS.get(name, (name,))[0] in CAUSAL
    auto: Any = AutoModelForCausalLM if is_causal else AutoModelForImageTextToText
    with torch.random.fork_rng():
        model: PreTrainedModel = auto.from_config(
            config, experts_implementation="eager", attn_implementation="eager"
        )
    return with_random_weights(model).to(torch.float64)


def small_config(name: str, only: str | None = None) -> PreTrainedConfig:
    """Return a family's configuration with small numbers in place of large ones."""
    model_type, own = VARIANTS.get(name, (name, {}))
    default = CONFIG_MAPPING[model_type]()
    fields = _merged(_merged(_small(default, TEXT), FIELDS.get(model_type, {})), own)
    if only is not None:
        _keep_one_layer(_text_fields(fields), only)
    return CONFIG_MAPPING[model_type](**fields)


def layer_kinds(name: str) -> list[str]:
    """Return each kind of layer of a family once; the name of all layers where they are alike."""
    types = getattr(small_config(name).get_text_config(), "layer_types", None)
    return list(dict.fromkeys(types or ["layer"]))


def _text_fields(fields: dict[str, Any]) -> dict[str, Any]:
    nested = [
        _text_fields(value)
        for name, value in fields.items()
        if name in _TEXT_CONFIGS and isinstance(value, dict)
    ]
    return nested[0] if nested else fields


def _keep_one_layer(fields: dict[str, Any], kind: str) -> None:
    """Cut fields down to those of one layer."""
    name = next(name for name in _NUM_LAYERS if name in fields)
    layers = fields[name]
    for key, value in fields.items():
        if isinstance(value, list) and len(value) == layers and key != "mrope_section":
            fields[key] = value[:1]
    fields[name] = 1
    if "layer_types" in fields:
        fields["layer_types"] = [kind]
    fields |= {"num_kv_shared_layers": 0} if "num_kv_shared_layers" in fields else {}


def _merged(fields: dict[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return `fields` with those of a family in their place, also inside of nested ones."""
    merged = dict(fields)
    for name, value in own.items():
        nested = isinstance(value, Mapping) and isinstance(merged.get(name), dict)
        merged[name] = _merged(merged[name], value) if nested else deepcopy(value)
    return {name: value for name, value in merged.items() if value is not ...}


def _small(config: PreTrainedConfig, sizes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a configuration that differ from its defaults, nested ones included."""
    fields: dict[str, Any] = {}
    attribute_map = getattr(type(config), "attribute_map", {})
    for name, value in vars(config).items():
        if isinstance(value, PreTrainedConfig):
            is_text = name in _TEXT_CONFIGS
            fields[name] = _small(value, TEXT if is_text else _TOWER)
            fields[name]["model_type"] = value.model_type
    for name, value in sizes.items():
        known = attribute_map.get(name, name)
        before = vars(config).get(known)
        if known in vars(config) and (name in _ALWAYS or isinstance(before, int)):
            fields[known] = value
    if sizes is TEXT:
        fields |= _layers(config)
        if "kv_lora_rank" in fields:  # latent keys are made for each query head
            fields["num_key_value_heads"] = TEXT["num_attention_heads"]
        rope = vars(config).get("rope_parameters")
        if isinstance(rope, dict) and "mrope_section" in rope:
            fields["rope_parameters"] = rope | {"mrope_section": MROPE_SECTION}
    return fields


_ALWAYS = ("head_dim", "pad_token_id", "bos_token_id", "eos_token_id")


def _layers(config: PreTrainedConfig) -> dict[str, Any]:
    """Return a number of layers with one of each kind, in the order of their first appearance."""
    name = getattr(type(config), "attribute_map", {}).get("num_hidden_layers", "num_hidden_layers")
    if name not in vars(config):
        return {}
    types = vars(config).get("layer_types")
    if not types:
        return {name: 2}
    kinds = list(dict.fromkeys(types))
    kinds = kinds * (2 if len(kinds) == 1 else 1)
    return {name: len(kinds), "layer_types": kinds}
