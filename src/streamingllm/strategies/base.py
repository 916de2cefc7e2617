"""Base class of all strategies, and the one way all of them run a model."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import torch
from torch import Tensor
from transformers import Cache, PreTrainedModel

from streamingllm.config import StreamConfig
from streamingllm.errors import UnsupportedFeatureError
from streamingllm.integration.sink_cache import SinkCache

LogitsToKeep = Literal["all", "last"]


class Strategy(ABC):
    """Strategy that continues when a text outgrows the model.

    Every strategy steps and counts. The other capabilities are optional: a strategy that lacks one
    refuses it with its own name and the feature's.

    Args:
        model: a causal language model of transformers.
        config: the numbers of tokens kept, and the strategy's own settings.
    """

    name: ClassVar[str]
    places_sink_token: ClassVar[bool] = False
    """Whether it puts a model's sink token first by itself; else it is fed that token first."""

    @abstractmethod
    def __init__(self, model: PreTrainedModel, config: StreamConfig) -> None: ...

    @property
    @abstractmethod
    def num_seen_tokens(self) -> int:
        """Tokens fed so far; of the longest stream in a batch."""

    @property
    @abstractmethod
    def num_cached_tokens(self) -> int:
        """Tokens whose keys and values are cached."""

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes of the cached keys and values."""

    @abstractmethod
    def step(self, ids: Tensor, valid: Tensor | None, logits_to_keep: LogitsToKeep) -> Tensor:
        """Feed one chunk to every stream.

        Args:
            ids: token ids, int64, [batch, seq].
            valid: False at padding, bool, [batch, seq]; None without padding.
            logits_to_keep: positions whose logits are returned.

        Returns:
            logits, [batch, seq or 1, vocab].
        """

    # Optional: a cache of sinks and a window, which can rewind, fork, export and skip.

    def cache_for(self, feature: str) -> SinkCache:
        """Return the cache that has a feature such as `rewind`.

        Raises:
            UnsupportedFeatureError: the strategy has no such cache.
        """
        raise UnsupportedFeatureError(
            f"strategy={self.name!r} has no {feature}; use strategy='sinks' or 'window'"
        )

    def fork(self) -> Strategy:
        """Return an independent copy.

        Raises:
            UnsupportedFeatureError: the strategy cannot be copied.
        """
        self.cache_for("fork")
        raise NotImplementedError

    # Optional: compiled decode steps. A strategy without them runs uncompiled.

    def compile(self, *, wait: bool, cached_only: bool) -> bool:
        """Compile the decode step, or load a cached one; return whether steps run compiled now.

        Args:
            wait: return only when the compilation has ended.
            cached_only: load an earlier compilation, but start none.
        """
        return False

    @property
    def is_compiled(self) -> bool:
        """Return whether decode steps run compiled now."""
        return False

    @property
    def is_captured(self) -> bool:
        """Return whether decode steps are replayed from CUDA graphs."""
        return False


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
