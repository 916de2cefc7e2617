"""Fields that a checkpoint states, in the names of transformers' configurations.

transformers' configuration classes take seconds to import. These are the fields before such a class
fills them in: those of `config.json`, or those that transformers takes from a GGUF header.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from streamingllm.models.gguf_header import GgufHeader

_OUTPUT = "output.weight"


@dataclass(frozen=True)
class _Architecture:
    """Describe how transformers reads one GGUF architecture.

    Args:
        model_type: the family.
        names: configuration fields by GGUF key, which lacks the architecture's name.
        fixed: fields that transformers leaves at its defaults, whatever the file says.
        always_tied: the output layer is the embedding also if the file holds both.
    """

    model_type: str
    names: Mapping[str, str]
    fixed: Mapping[str, Any] = field(default_factory=dict)
    always_tied: bool = False


_COMMON = {
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "context_length": "max_position_embeddings",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
}
_KEY_LENGTH = {"attention.key_length": "head_dim"}
_GEMMA = {**_COMMON, **_KEY_LENGTH, "attention.sliding_window": "sliding_window"}
_NO_WINDOW = {"use_sliding_window": False}
_BLOOM = {
    "block_count": "n_layer",
    "embedding_length": "hidden_size",
    "attention.head_count": "n_head",
}
_GPT2 = {"block_count": "n_layer", "embedding_length": "n_embd", "attention.head_count": "n_head"}
# The counterpart of GGUF_CONFIG_MAPPING in transformers/integrations/ggml.py.
_ARCHITECTURES = {
    "llama": _Architecture("llama", {**_COMMON, "rope.dimension_count": "head_dim"}),
    "qwen2": _Architecture("qwen2", _COMMON, _NO_WINDOW),
    "qwen2moe": _Architecture("qwen2_moe", _COMMON, _NO_WINDOW),
    "qwen3": _Architecture("qwen3", _COMMON, {**_NO_WINDOW, "head_dim": 128}),
    "qwen3moe": _Architecture("qwen3_moe", {**_COMMON, **_KEY_LENGTH}, _NO_WINDOW),
    "phi3": _Architecture("phi3", _COMMON),
    "gemma2": _Architecture("gemma2", _GEMMA),
    "gemma3": _Architecture("gemma3_text", _GEMMA),
    "stablelm": _Architecture("stablelm", _COMMON),
    "starcoder2": _Architecture("starcoder2", _COMMON),
    "falcon": _Architecture(
        "falcon",
        _COMMON,
        {"multi_query": True, "new_decoder_architecture": False, "alibi": False},
        always_tied=True,
    ),
    "bloom": _Architecture("bloom", _BLOOM, always_tied=True),
    "gpt2": _Architecture("gpt2", _GPT2, {"n_positions": 1024}),
}


def folder_fields(folder: Path) -> dict[str, Any]:
    """Return the fields of a folder's `config.json`."""
    fields = json.loads((folder / "config.json").read_text())
    assert isinstance(fields, dict)
    return fields


def gguf_fields(header: GgufHeader) -> dict[str, Any] | None:
    """Return the fields that transformers takes from a GGUF header, None where not known here."""
    found = header.metadata
    name = found.get("general.architecture")
    architecture = _ARCHITECTURES.get(name) if isinstance(name, str) else None
    if architecture is None or _is_no_llama(found):
        return None
    named = {
        target: found[f"{name}.{key}"]
        for key, target in architecture.names.items()
        if f"{name}.{key}" in found
    }
    untied = any(tensor.name == _OUTPUT for tensor in header.tensors)
    return {
        "model_type": architecture.model_type,
        **named,
        **architecture.fixed,
        "tie_word_embeddings": architecture.always_tied or not untied,
    }


def _is_no_llama(metadata: Mapping[str, Any]) -> bool:
    """Tell whether a file of another family goes by Llama's architecture, as Mixtral's do."""
    return metadata.get("general.name") == "mistral" or "llama.expert_count" in metadata
