"""Check a model on a few tokens before it is trusted with a stream.

No declaration tells what a model does with the masks, tables and arguments of its attention. So a
few tokens are streamed past the first eviction:

- one stream without sinks, against the model's own attention under a banded mask;
- two streams with sinks, one of them at another position, each attention against the plain
  reference;
- the same tokens with other position ids, which must change nothing within the cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from streamingllm.errors import (
    StreamingLLMError,
    UnsupportedFeatureError,
    UnsupportedModelError,
    first_line,
)
from streamingllm.integration.checked_cache import AttentionFacts, CheckedCache
from streamingllm.integration.position_check import first_scaled_position
from streamingllm.integration.support import SCALED, configs_of, refusal
from streamingllm.integration.trained_sinks import plain_implementation

if TYPE_CHECKING:
    from streamingllm.integration.attach import Attachment

NUM_SINK_TOKENS, WINDOW_SIZE = 2, 3
PASSES = (5, 2, 1)  # prefill, which evicts already; a second pass; a single token
BATCH_PASSES, NUM_PADDING = (6, 1), 2
MIN_CACHE_SIZE = 64  # a model that changes with positions before that is refused
# Median over tokens of the relative difference: kernels round differently, and a mixture of
# experts may send a token elsewhere because of it.
TOLERANCE_FULL, TOLERANCE_HALF = 0.01, 0.2


def check_model(model: PreTrainedModel, attachment: Attachment) -> AttentionFacts:
    """Refuse a model that computes something else in a stream than by itself.

    Args:
        model: a causal language model without an adapter.
        attachment: of its decoder.

    Returns:
        what its layers do around attention.

    Raises:
        UnsupportedModelError: hidden states or attention differ.
    """
    window_size = min(WINDOW_SIZE, *(w for w in attachment.windows if w), WINDOW_SIZE)
    ids = _check_ids(model, sum(PASSES))
    try:
        with torch.no_grad():
            first_scaled = first_scaled_position(model, attachment)
            by_itself = _by_itself(model, attachment.decoder, ids, window_size)
            in_stream, facts = _in_stream(model, attachment.decoder, ids, window_size)
            if attachment.hybrid is not None and not _agree(by_itself, in_stream):
                # Some restart their states in a pass of many tokens, and continue them in one.
                attachment.passes.stepwise = True
                in_stream, facts = _in_stream(model, attachment.decoder, ids, window_size)
            with CheckedCache(model, NUM_SINK_TOKENS, window_size, compares=True) as batch:
                _run_batch(attachment.decoder, ids, batch)
    except (AttributeError, TypeError, RuntimeError, StreamingLLMError) as error:
        if attachment.hybrid is not None and isinstance(error, UnsupportedFeatureError):
            reason = f"a check of it needs what hybrids cannot do ({first_line(error)})"
            raise UnsupportedModelError(refusal(model.config.model_type, reason)) from error
        raise check_failed(model) from error
    if first_scaled is not None and first_scaled < MIN_CACHE_SIZE:
        raise _scales_by_position(model)
    if not _agree(by_itself, in_stream) or not batch.is_right:
        raise check_failed(model)
    return replace(facts, first_scaled_position=first_scaled)


def _scales_by_position(model: PreTrainedModel) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"{model.config.model_type} cannot stream: {SCALED}; "
        "use a decoder such as Llama, Qwen, Mistral or Gemma"
    )


def check_failed(model: PreTrainedModel) -> UnsupportedModelError:
    """Return the error for a model that did not pass."""
    return UnsupportedModelError(
        f"{model.config.model_type} cannot stream: its attention does more than a mask, a softmax "
        "and relative positions can express; use a decoder such as Llama, Qwen, Mistral or Gemma"
    )


def _check_ids(model: PreTrainedModel, num_tokens: int) -> Tensor:
    """Return different token ids, int64, [1, num_tokens]."""
    num_ids = int(model.config.get_text_config().vocab_size)
    return torch.arange(num_tokens, device=model.device)[None] % num_ids


def _by_itself(model: PreTrainedModel, decoder: nn.Module, ids: Tensor, window_size: int) -> Tensor:
    """Return the hidden states of the model's own attention, each query seeing its window only."""
    query, key = torch.arange(ids.shape[1])[:, None], torch.arange(ids.shape[1])
    seen = (key <= query) & (key > query - window_size)
    mask = torch.zeros(seen.shape, dtype=model.dtype)
    mask = mask.masked_fill(~seen, torch.finfo(model.dtype).min)[None, None].to(ids.device)
    with _own_attention(model):
        hidden: Tensor = decoder(ids, attention_mask=mask, use_cache=False)[0]
    return hidden


@contextmanager
def _own_attention(model: PreTrainedModel) -> Iterator[None]:
    """Let the model attend by the plain products that each model file has: they take any mask."""
    with ExitStack() as undo:
        for config in configs_of(model):
            name = "_attn_implementation_internal"
            undo.callback(setattr, config, name, getattr(config, name))
            setattr(config, name, plain_implementation(model))
        yield


def _in_stream(
    model: PreTrainedModel, decoder: nn.Module, ids: Tensor, window_size: int
) -> tuple[Tensor, AttentionFacts]:
    """Return the hidden states of one stream without sinks, and what its layers did."""
    with CheckedCache(model, 0, window_size, compares=False) as cache:
        parts = [
            decoder(part, past_key_values=cache, use_cache=True)[0]
            for part in ids.split(list(PASSES), dim=1)
        ]
    return torch.cat(parts, dim=1), cache.facts


def _run_batch(decoder: nn.Module, ids: Tensor, cache: CheckedCache) -> None:
    """Stream the same tokens twice; the first stream begins with padding."""
    first, second = ids[:, : sum(BATCH_PASSES)].expand(2, -1).split(list(BATCH_PASSES), dim=1)
    mask = torch.ones_like(first)
    mask[0, :NUM_PADDING] = 0
    decoder(first, attention_mask=mask, past_key_values=cache, use_cache=True)
    decoder(second, past_key_values=cache, use_cache=True)


def _agree(by_itself: Tensor, in_stream: Tensor) -> bool:
    """Return whether hidden states [1, seq, hidden] differ by rounding only."""
    apart = (by_itself - in_stream).double().norm(dim=-1)[0]
    relative = apart / by_itself.double().norm(dim=-1)[0].clamp(min=1e-30)
    if by_itself.dtype.itemsize < torch.float32.itemsize:
        return float(relative.median()) <= TOLERANCE_HALF
    return all(float(part.median()) <= TOLERANCE_FULL for part in relative.split(list(PASSES)))
