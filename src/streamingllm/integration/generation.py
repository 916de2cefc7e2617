"""Let `model.generate` continue a streaming cache."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, update_wrapper
from typing import Any, TypeGuard

from torch import Tensor
from transformers import GenerationMixin, PreTrainedModel

from streamingllm.integration.adapters import Undo, override
from streamingllm.integration.pass_inputs import check_unread
from streamingllm.integration.streaming_pass import StreamingCache

_PREPARATION = "prepare_inputs_for_generation"
Owns = Callable[[Any], TypeGuard[StreamingCache]]


def shadow_preparation(model: PreTrainedModel, owns: Owns) -> Undo:
    """Let `generate` feed what a streaming cache has not been fed yet; return the undo."""
    own = getattr(model, _PREPARATION)
    # Phi-3 drops its cache where its frequencies change with length; ours never change.
    general: Callable[..., Any] = GenerationMixin.prepare_inputs_for_generation
    method = update_wrapper(partial(_prepare, own, general.__get__(model), owns), own)
    return override(model, _PREPARATION, method)


def _prepare(
    own: Callable[..., Any],
    general: Callable[..., Any],
    owns: Owns,
    input_ids: Tensor,
    **kwargs: Any,
) -> dict[str, Any]:
    cache = kwargs.get("past_key_values")
    if not owns(cache):
        prepared: dict[str, Any] = own(input_ids, **kwargs)
        return prepared
    check_unread(input_ids, kwargs.get("next_sequence_length"), cache.get_seq_length())
    prepared = own(input_ids, **kwargs)
    return prepared if prepared.get("past_key_values") is cache else general(input_ids, **kwargs)


def clear_cache_implementation(model: PreTrainedModel) -> Undo:
    """Let `generate` take our cache although the checkpoint's generation config names another."""
    config = getattr(model, "generation_config", None)
    named = getattr(config, "cache_implementation", None)
    if config is None or named is None:
        return lambda: None
    config.cache_implementation = None
    return lambda: setattr(config, "cache_implementation", named)
