"""The configuration of a GGUF file's model, in the fields of transformers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from streamingllm.errors import ModelLoadError
from streamingllm.models.gguf.end_marks import end_token_ids
from streamingllm.models.gguf.families import GGUF_FAMILIES, REFUSED
from streamingllm.models.gguf.family import GgufFamily
from streamingllm.models.gguf.header import GgufHeader
from streamingllm.models.gguf.metadata import ArchitectureMetadata
from streamingllm.models.gguf.rope import rope_parameters

if TYPE_CHECKING:  # takes seconds to import
    from transformers import PreTrainedConfig


def is_read_here(header: GgufHeader) -> bool:
    """Tell whether files of this architecture are read here; others are left to transformers.

    Raises:
        ModelLoadError: the architecture cannot stream, whoever reads it.
    """
    name = header.architecture
    if name in REFUSED:
        raise ModelLoadError(
            f"{header.path}: general.architecture={name!r} {REFUSED[name]}; choose another model"
        )
    return name in GGUF_FAMILIES


def gguf_family(header: GgufHeader) -> GgufFamily:
    """Return the family of a file.

    Raises:
        ModelLoadError: its architecture is not known.
    """
    name = header.architecture
    if name not in GGUF_FAMILIES:
        raise ModelLoadError(
            f"{header.path}: general.architecture={name!r} is not known; choose a file of one "
            f"of {', '.join(sorted(GGUF_FAMILIES))}"
        )
    return GGUF_FAMILIES[name]


def gguf_fields(header: GgufHeader) -> dict[str, Any]:
    """Return the fields of a configuration that follow from a file, `model_type` among them.

    transformers is not imported.

    Raises:
        ModelLoadError: the architecture is not known, or the file does not state enough.
    """
    family, metadata = gguf_family(header), ArchitectureMetadata(header)
    own = family.more(metadata)
    rules = _common_rules(family, metadata)
    common = {name: rule() for name, rule in rules.items() if name not in own}
    return {**common, **own, **_token_ids(header, metadata.vocab_size)}


def gguf_config(header: GgufHeader) -> PreTrainedConfig:
    """Return the configuration of a file's model.

    Raises:
        ModelLoadError: the architecture is not known, or the file does not state enough.
    """
    from transformers import AutoConfig

    fields = gguf_fields(header)
    ends = end_token_ids(header, fields["vocab_size"])
    fields["eos_token_id"] = ends[0] if len(ends) == 1 else ends or None
    config = AutoConfig.for_model(**fields)
    config.name_or_path = str(header.path)
    return config


def _common_rules(
    family: GgufFamily, metadata: ArchitectureMetadata
) -> dict[str, Callable[[], Any]]:
    """Return what computes each field; a family with a field of its own may lack its metadata."""
    rules: dict[str, Callable[[], Any]] = {
        "model_type": lambda: family.model_type,
        "vocab_size": lambda: metadata.vocab_size,
        "num_hidden_layers": lambda: metadata.num_layers,
        "hidden_size": lambda: metadata.integer("embedding_length"),
        "intermediate_size": lambda: _feed_forward_length(metadata),
        "max_position_embeddings": lambda: metadata.integer("context_length"),
        "num_attention_heads": lambda: metadata.integer("attention.head_count"),
        "num_key_value_heads": lambda: metadata.num_kv_heads,
        "rope_parameters": lambda: rope_parameters(metadata),
        "tie_word_embeddings": lambda: metadata.is_tied,
    }
    if family.epsilon[1]:
        rules[family.epsilon[1]] = lambda: metadata.number(family.epsilon[0])
    if family.has_head_dim:
        rules["head_dim"] = lambda: metadata.head_size
    return rules


def _feed_forward_length(metadata: ArchitectureMetadata) -> int:
    """Return the width of feed-forward layers; files of experts alone state that of an expert."""
    name = "feed_forward_length"
    return metadata.integer(name if metadata.has(name) else f"expert_{name}")


def _token_ids(header: GgufHeader, vocab_size: int) -> dict[str, int | None]:
    return {
        "bos_token_id": _token_id(header, "bos_token_id", vocab_size),
        "eos_token_id": _token_id(header, "eos_token_id", vocab_size),
        "pad_token_id": _token_id(header, "padding_token_id", vocab_size),
    }


def _token_id(header: GgufHeader, name: str, vocab_size: int) -> int | None:
    key = f"tokenizer.ggml.{name}"
    if key not in header.metadata:
        return None
    token_id = header.integer(key, 0)
    if not 0 <= token_id < vocab_size:
        raise ModelLoadError(
            f"{header.path}: {key}={token_id} is outside the vocabulary of {vocab_size:,}; "
            "fetch the file again"
        )
    return token_id
