"""What a stream asks of a strategy, and the one way all of them run a model."""

from __future__ import annotations

import inspect
from typing import Literal, Protocol

import torch
from torch import Tensor
from transformers import Cache, PreTrainedModel

from streamingllm.config import StreamConfig

LogitsToKeep = Literal["all", "last"]


class Strategy(Protocol):
    """One way to go on reading when a text outgrows the model."""

    def __init__(self, model: PreTrainedModel, config: StreamConfig) -> None: ...

    @property
    def num_seen_tokens(self) -> int:
        """Tokens fed so far."""
        ...

    @property
    def num_cached_tokens(self) -> int:
        """Tokens whose keys and values are held."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes of the keys and values held."""
        ...

    def step(self, ids: Tensor, valid: Tensor | None, logits_to_keep: LogitsToKeep) -> Tensor:
        """Feed ids [batch, seq] and return logits [batch, seq or 1, vocab].

        `valid` is False at padding, bool, [batch, seq]; None without padding.
        """
        ...


def run_model(
    model: PreTrainedModel,
    ids: Tensor,
    logits_to_keep: LogitsToKeep,
    *,
    cache: Cache | None = None,
    attention_mask: Tensor | None = None,
) -> Tensor:
    """Run one forward pass without gradients; return logits [batch, seq or 1, vocab]."""
    options = {}
    if logits_to_keep == "last" and "logits_to_keep" in inspect.signature(model.forward).parameters:
        # By number, not as a slice: torch copies the whole head for a row that keeps its stride.
        options["logits_to_keep"] = torch.tensor([ids.shape[1] - 1], device=ids.device)
    with torch.no_grad():
        output = model(
            input_ids=ids,
            attention_mask=attention_mask,
            past_key_values=cache,
            use_cache=cache is not None,
            **options,
        )
    logits: Tensor = output.logits
    if logits_to_keep == "last" and logits.shape[1] > 1:
        return logits[:, -1:].clone()  # the others' memory is free at once
    return logits
