"""Check models, token ids and numbers that callers give, before anything is computed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from streamingllm.config import StreamConfig
from streamingllm.errors import InputError


class HasModel(Protocol):
    """Protocol of what `load_model` returns: a model with its tokenizer."""

    @property
    def model(self) -> PreTrainedModel:
        """The causal language model."""
        ...


def model_of(model: PreTrainedModel | HasModel) -> PreTrainedModel:
    """Return the model itself, whether it comes alone or with its tokenizer.

    Raises:
        InputError: it is neither.
    """
    found = model if isinstance(model, PreTrainedModel) else getattr(model, "model", None)
    if not isinstance(found, PreTrainedModel):
        raise InputError(
            f"model is a {type(model).__name__}; give a causal language model of transformers or "
            "what load_model returned"
        )
    return found


def sink_token_of(model: PreTrainedModel) -> int | None:
    """Return the token that a model was trained to see before each text; None if it has none.

    `sink_token_id` of the configuration names it. Streams feed it themselves and never evict it.

    Raises:
        InputError: the model has no such token.

    Source: Xiao et al. (arXiv 2309.17453), section 3.3.
    """
    token: object = getattr(model.config.get_text_config(), "sink_token_id", None)
    if token is None:
        return None
    if not isinstance(token, int) or not 0 <= token < vocab_size_of(model):
        raise InputError(
            f"sink_token_id={token!r} is no token of {model.config.model_type}; choose one of 0 "
            f"to {vocab_size_of(model) - 1}"
        )
    return token


def with_sink_token(config: StreamConfig, model: PreTrainedModel) -> StreamConfig:
    """Return a config with one more sink, the first, if a model has a token for it.

    The first n tokens of the text stay cached too, and the window is as long as before.
    """
    if sink_token_of(model) is None:
        return config
    moved = config.sink_positions
    if moved is not None:
        moved = (0, *(position + 1 for position in moved))
    return replace(config, num_sink_tokens=config.num_sink_tokens + 1, sink_positions=moved)


def sink_token_rows(model: PreTrainedModel, num_streams: int) -> Tensor | None:
    """Return what each stream begins with, int64, [num_streams, 1]; None for nothing."""
    token = sink_token_of(model)
    if token is None:
        return None
    return torch.full((num_streams, 1), token, dtype=torch.int64, device=model.device)


@dataclass(frozen=True)
class TokenBatch:
    """Tokens as the engine takes them.

    Args:
        ids: int64, [batch, seq].
        valid: False at padding, bool, [batch, seq]; None without padding.
        is_single: whether the caller gave one stream, [seq].
    """

    ids: Tensor
    valid: Tensor | None
    is_single: bool


def vocab_size_of(model: PreTrainedModel) -> int:
    """Return how many token ids a model has embeddings for."""
    embedding: Any = model.get_input_embeddings()  # packed ones are no `nn.Embedding`
    return int(embedding.num_embeddings)


def check_tokens(
    ids: Tensor, attention_mask: Tensor | None, vocab_size: int, device: torch.device
) -> TokenBatch:
    """Return ids and mask in one shape on `device`.

    Args:
        ids: int64 or int32, [seq] or [batch, seq].
        attention_mask: 0 at padding, of the same shape; None without padding.
        vocab_size: ids must be below it.
        device: where the model is.

    Raises:
        InputError: ids are empty, of a wrong shape or type, or out of the vocabulary.
    """
    kind = getattr(ids, "dtype", type(ids).__name__)
    if kind not in (torch.int64, torch.int32):
        raise InputError(f"ids is {kind}; give a tensor of int64 token ids")
    if ids.ndim not in (1, 2) or ids.numel() == 0:
        raise InputError(
            f"ids has shape {tuple(ids.shape)}; give [seq] or [batch, seq], one token at least"
        )
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= vocab_size:
        bad = low if low < 0 else high
        raise InputError(
            f"ids contains {bad}, which is not in the vocabulary; give ids from 0 to "
            f"{vocab_size - 1}"
        )
    rows = ids.reshape(-1, ids.shape[-1]).to(device, torch.int64)
    return TokenBatch(rows, _valid(ids, attention_mask, device), ids.ndim == 1)


def _valid(ids: Tensor, mask: Tensor | None, device: torch.device) -> Tensor | None:
    if mask is None:
        return None
    if mask.shape != ids.shape:
        raise InputError(
            f"attention_mask has shape {tuple(mask.shape)}; give that of ids, {tuple(ids.shape)}"
        )
    valid = mask.reshape(-1, ids.shape[-1]).to(device, torch.bool)
    return None if bool(valid.all()) else valid
