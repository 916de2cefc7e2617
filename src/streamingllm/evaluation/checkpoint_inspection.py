"""Inspect a checkpoint without reading its weights, and without modelling code where that will do.

Importing transformers' modelling code takes longer than anyone waits for a table. Known families
are described by rules; others, and checkpoints that rules do not cover, by a small model.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from streamingllm.cache.geometry import layer_geometries
from streamingllm.config import StreamConfig
from streamingllm.evaluation.family_rules import NotKnownError, num_layers, positive
from streamingllm.evaluation.known_families import KNOWN_FAMILIES, REFUSED_FAMILIES, LayerShape
from streamingllm.evaluation.model_facts import LayerGroup, ModelFacts
from streamingllm.integration.support import RECURRENT, learned_positions, refusal
from streamingllm.models.checkpoint import Checkpoint
from streamingllm.models.failures import failing_as_load_error
from streamingllm.models.gguf.config import gguf_fields, is_read_here
from streamingllm.models.gguf.parts import read_gguf_model
from streamingllm.models.placement import DTYPES, dtype_in_memory
from streamingllm.models.stated_fields import folder_fields
from streamingllm.models.weight_headers import (
    Shapes,
    first_dtype,
    num_parameters,
    safetensors_headers,
    shapes_of,
)

_CPU = torch.device("cpu")
_log = logging.getLogger("streamingllm")


def inspect_checkpoint(
    checkpoint: Checkpoint,
    config: StreamConfig,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device = _CPU,
) -> ModelFacts:
    """Find out what `inspect_model` does without reading the weights.

    Args:
        checkpoint: files of a causal language model.
        config: sinks and window of the cache in question.
        dtype: of the weights, were they loaded; None for the choice that `load_model` makes.
        device: where they would be.

    Raises:
        ModelLoadError: the checkpoint is no decoder, or is damaged as far as its headers tell.
    """
    try:
        return inspect_by_rules(checkpoint, config, dtype=dtype, device=device)
    except NotKnownError as error:
        _log.debug("%s: the model is asked, no rule covers it: %s", checkpoint.path, error)
    from streamingllm.evaluation.inspection import inspect_miniature

    return inspect_miniature(checkpoint, config, dtype=dtype, device=device)


def inspect_by_rules(
    checkpoint: Checkpoint,
    config: StreamConfig,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device = _CPU,
) -> ModelFacts:
    """Find out what `inspect_checkpoint` does for a known family.

    Raises:
        NotKnownError: the family is not known, or the checkpoint does not state enough.
        ModelLoadError: a file is damaged or cut short.
    """
    with failing_as_load_error(f"{checkpoint.path}: cannot be read as a decoder"):
        try:
            fields, shapes, stored = _read(checkpoint)
            family = fields.get("model_type")
            if not isinstance(family, str):
                raise NotKnownError(f"model_type={family!r}")
            in_memory = dtype_in_memory(dtype, stored, device)
            return _facts(family, fields, shapes, config, in_memory)
        except NotKnownError as error:
            not_known = error
    raise not_known


def _read(checkpoint: Checkpoint) -> tuple[dict[str, Any], Shapes, torch.dtype]:
    """Return the fields a checkpoint states, its tensors' shapes and its data type in memory."""
    if checkpoint.gguf_file is not None:
        header = read_gguf_model(checkpoint.path)
        if not is_read_here(header):
            raise NotKnownError(f"architecture={header.architecture!r}")
        return (
            gguf_fields(header),
            {tensor.name: tensor.shape for tensor in header.tensors},
            torch.float32,
        )
    fields = folder_fields(checkpoint.folder)
    if fields.get("quantization_config") is not None:
        raise NotKnownError("quantised weights")
    headers = safetensors_headers(checkpoint.folder)
    configured = fields.get("dtype", fields.get("torch_dtype"))
    if configured is None:
        return fields, shapes_of(headers), first_dtype(headers)
    if configured not in DTYPES:
        raise NotKnownError(f"dtype={configured!r}")
    return fields, shapes_of(headers), DTYPES[configured]


def _facts(
    family: str,
    fields: Mapping[str, Any],
    shapes: Shapes,
    config: StreamConfig,
    dtype: torch.dtype,
) -> ModelFacts:
    known = KNOWN_FAMILIES.get(family)
    if known is None and family not in REFUSED_FAMILIES:
        raise NotKnownError(f"model_type={family!r}")
    tied = fields.get("tie_word_embeddings", known.tied if known else True)
    parameters = num_parameters(shapes, num_layers(fields), bool(tied))
    if parameters is None:
        raise NotKnownError("a parameter is missing, or its use is not known")
    name = str(dtype).removeprefix("torch.")
    learned = REFUSED_FAMILIES.get(family)
    states_length = learned is not None if known is None else known.has_trained_length
    length = _trained_length(fields, states_length)
    if known is None:
        reason = RECURRENT if learned is None else learned_positions(learned)
        return ModelFacts(family, parameters, name, length, refusal(family, reason))
    return _with_layers(
        ModelFacts(family, parameters, name, length), known.layers(fields), config, dtype
    )


def _trained_length(fields: Mapping[str, Any], is_stated: bool) -> int | None:
    names = ("max_position_embeddings", "n_positions", "max_seq_len")
    if not is_stated and not any(name in fields for name in names):
        return None
    return positive(fields, *names)


def _with_layers(
    facts: ModelFacts, layers: Sequence[LayerShape], config: StreamConfig, dtype: torch.dtype
) -> ModelFacts:
    geometries = layer_geometries(config, [layer.own_window for layer in layers], 0)
    groups = [
        LayerGroup(
            attention="global" if layer.own_window is None else "local",
            own_window=layer.own_window,
            position_encoding=layer.position_encoding,
            num_kv_heads=layer.num_kv_heads,
            key_size=layer.key_size,
            value_size=layer.value_size,
            num_sink_tokens=geometry.num_sink_tokens,
            window_size=geometry.window_size,
        )
        for layer, geometry in zip(layers, geometries, strict=True)
    ]
    nbytes = [
        group.num_kv_heads * (group.key_size + group.value_size) * dtype.itemsize
        for group in groups
    ]
    entries = [geometry.num_entries for geometry in geometries]
    return ModelFacts(
        facts.family,
        facts.parameters,
        facts.dtype,
        facts.trained_length,
        layers=tuple(Counter(groups).most_common()),
        bytes_per_cached_token=sum(nbytes),
        cache_bytes=sum(size * n for size, n in zip(nbytes, entries, strict=True)),
    )
