"""Base class of all strategies, and the one way all of them run a model."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from typing import ClassVar, Literal, NamedTuple, NoReturn

import torch
from torch import Tensor
from transformers import Cache, PreTrainedModel

from streamingllm.cache.stream_positions import StreamPositions
from streamingllm.config import StreamConfig
from streamingllm.errors import UnsupportedFeatureError

LogitsToKeep = Literal["all", "last"]


class StrategyState(NamedTuple):
    """State of a strategy between two steps, for snapshots.

    Args:
        buffers: every buffer by name, one tensor per layer; empty before the first token.
        positions: stream positions that the buffers belong to.
    """

    buffers: dict[str, list[Tensor]]
    positions: StreamPositions


class Strategy(ABC):
    """One way to continue when a text outgrows the model.

    Every strategy steps and counts. The other capabilities are optional: a strategy that lacks one
    inherits the method that raises `UnsupportedFeatureError` with the strategy and the feature.

    Args:
        model: a causal language model of transformers.
        config: the numbers of tokens kept, and the strategy's own settings.
    """

    name: ClassVar[str]

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

    # Optional: streams of different length, and back in time.

    @property
    def num_seen_tokens_per_stream(self) -> Tensor:
        """Tokens fed to each stream, int64, [batch]."""
        self._refuse("num_seen_tokens_per_stream")

    @property
    def rewind_nbytes(self) -> int:
        """Bytes of the rewind buffer."""
        self._refuse("rewind_nbytes")

    @property
    def max_rewind_per_stream(self) -> Tensor:
        """Tokens that each stream can take back now, int64, [batch]."""
        self._refuse("max_rewind_per_stream")

    def rewind(self, num_tokens: Tensor) -> None:
        """Take back the last tokens of each stream, int64, [batch].

        Raises:
            RewindError: a number is greater than `max_rewind_per_stream`.
            UnsupportedFeatureError: the strategy cannot rewind.
        """
        self._refuse("rewind")

    def skip_to(self, position: int) -> None:
        """Set every stream to a later stream position; the cache stays as it is.

        Raises:
            UnsupportedFeatureError: the strategy has no stream positions.
        """
        self._refuse("skip_to")

    # Optional: copies and snapshots.

    def fork(self) -> Strategy:
        """Return an independent copy.

        Raises:
            UnsupportedFeatureError: the strategy cannot be copied.
        """
        self._refuse("fork")

    def state(self) -> StrategyState:
        """Return the exact state; its tensors are the strategy's own.

        Raises:
            UnsupportedFeatureError: the strategy has no snapshots.
        """
        self._refuse("snapshot")

    def load_state(self, state: StrategyState) -> None:
        """Continue from a copy of `state`.

        Raises:
            UnsupportedFeatureError: the strategy has no snapshots.
        """
        self._refuse("restore")

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
        """Whether decode steps run compiled now."""
        return False

    @property
    def is_captured(self) -> bool:
        """Whether decode steps are replayed from CUDA graphs."""
        return False

    def _refuse(self, feature: str) -> NoReturn:
        raise UnsupportedFeatureError(
            f"strategy={self.name!r} has no {feature}; use strategy='sinks' or 'window'"
        )


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
