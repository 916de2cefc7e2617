"""Inspect models: whether they can stream, what their layers are, what a cache takes."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import torch
from transformers import PreTrainedModel

from streamingllm.cache.ring import RingLayer
from streamingllm.config import StreamConfig
from streamingllm.errors import UnsupportedModelError
from streamingllm.evaluation.model_facts import LayerGroup, ModelFacts
from streamingllm.integration.attach import Attachment, attachment_of
from streamingllm.integration.sink_cache import SinkCache
from streamingllm.kernels import native
from streamingllm.models.checkpoint import Checkpoint
from streamingllm.models.failures import failing_as_load_error
from streamingllm.models.miniature import Miniature, make_miniature
from streamingllm.models.outline import read_outline
from streamingllm.models.placement import dtype_in_memory
from streamingllm.models.weight_types import num_parameters


def inspect_model(model: PreTrainedModel, config: StreamConfig) -> ModelFacts:
    """Find out whether a model can stream, and what its cache takes.

    Args:
        model: a causal language model.
        config: sinks and window of the cache in question.
    """
    family, dtype = model.config.model_type, str(model.dtype).removeprefix("torch.")
    parameters, length = num_parameters(model), trained_length(model)
    try:
        attachment = attachment_of(model)
        encodings = _encoding_names(attachment, config.cache_size)
        measured, state_bytes = _run_one_token(model)
    except UnsupportedModelError as error:
        return ModelFacts(family, parameters, dtype, length, str(error))
    with SinkCache(model, config.num_sink_tokens, config.window_size) as cache:
        geometries = [layer.geometry for layer in cache.rings]
    groups = [
        LayerGroup(
            attention="global" if own_window is None else "local",
            own_window=own_window,
            position_encoding=encoding,
            num_kv_heads=layer.k_cache.shape[1],
            key_size=layer.k_cache.shape[-1],
            value_size=layer.v_cache.shape[-1],
            num_sink_tokens=geometry.num_sink_tokens,
            window_size=geometry.window_size,
        )
        for own_window, encoding, layer, geometry in zip(
            attachment.windows, encodings, measured, geometries, strict=True
        )
    ]
    entries = [geometry.num_entries for geometry in geometries]
    return ModelFacts(
        family,
        parameters,
        dtype,
        length,
        layers=tuple(Counter(groups).most_common()),
        bytes_per_cached_token=sum(layer.nbytes for layer in measured),
        cache_bytes=state_bytes
        + sum(layer.nbytes * n for layer, n in zip(measured, entries, strict=True)),
        state_bytes=state_bytes,
    )


def inspect_miniature(
    checkpoint: Checkpoint,
    config: StreamConfig,
    *,
    dtype: torch.dtype | None,
    device: torch.device,
) -> ModelFacts:
    """Find out what `inspect_model` does with a small model of random weights in its place.

    See `models.miniature`.

    Args:
        checkpoint: files of a causal language model.
        config: sinks and window of the cache in question.
        dtype: of the weights, were they loaded; None for the choice that `load_model` makes.
        device: where they would be.

    Raises:
        ModelLoadError: the checkpoint is no decoder, or is damaged as far as its headers tell.
    """
    outline = read_outline(checkpoint)
    dtype = dtype_in_memory(dtype, outline.stored_dtype, device)
    for all_layers in (False, True):
        with failing_as_load_error(f"{checkpoint.path}: cannot be read as a decoder"):
            small = make_miniature(outline.config, dtype, all_layers=all_layers)
        placed: torch.nn.Module = small.model
        placed.to(device)
        with native.switched_off():
            facts = inspect_model(small.model, config)
        if small.layers_each == 1 or len(facts.layers) <= 1:
            break
    return _of_the_whole(facts, small)


def _of_the_whole(facts: ModelFacts, small: Miniature) -> ModelFacts:
    """Return the facts of a model from those of its miniature."""

    def scaled(number: int | None) -> int | None:
        return None if number is None else round(number * small.layers_each)

    return replace(
        facts,
        parameters=small.num_parameters,
        layers=tuple((group, round(count * small.layers_each)) for group, count in facts.layers),
        bytes_per_cached_token=scaled(facts.bytes_per_cached_token),
        cache_bytes=scaled(facts.cache_bytes),
        state_bytes=round(facts.state_bytes * small.layers_each),
    )


def trained_length(model: PreTrainedModel) -> int | None:
    """Return how many positions the model was trained on, None where its config does not say."""
    config = model.config.get_text_config()
    for name in ("max_position_embeddings", "max_seq_len"):
        length = getattr(config, name, None)
        if isinstance(length, int):
            return length
    return None


def _encoding_names(attachment: Attachment, cache_size: int) -> list[str]:
    names = [encoding.name for encoding in attachment.encodings(cache_size)]
    if attachment.positions is None:
        return names
    tables = [layer.table for layer in attachment.positions.layers]
    rules = [None if table is None else table.rope_type for table in tables]
    return [
        name if rule in (None, "default") else f"{name} ({rule})"
        for name, rule in zip(names, rules, strict=True)
    ]


def _run_one_token(model: PreTrainedModel) -> tuple[list[RingLayer], int]:
    """Return rings of one entry, as one token has filled them, and the bytes of its states."""
    token = torch.zeros((1, 1), dtype=torch.int64, device=model.device)
    cache = SinkCache(model, num_sink_tokens=0, window_size=1, max_rewind_tokens=0)
    with cache, torch.no_grad():
        model(input_ids=token, past_key_values=cache, use_cache=True)
    return cache.rings, 0 if cache.states is None else cache.states.nbytes
