"""Sliding window with re-computation: exact and slow (paper, figure 1c)."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel

from streamingllm.config import StreamConfig
from streamingllm.inputs import sink_token_rows
from streamingllm.strategies.base import LogitsToKeep, Strategy, run_model
from streamingllm.strategies.dense import refuse_padding

WINDOWS_PER_PASS = 4


class RecomputeStrategy(Strategy):
    """Predict each token from a fresh run over the last m tokens; nothing is cached.

    Each run begins with the sink token of a model that was trained with one.
    """

    name = "recompute"
    places_sink_token = True

    def __init__(self, model: PreTrainedModel, config: StreamConfig) -> None:
        self.model = model
        self.config = config
        self.window_size = config.window_size
        self._num_seen_tokens = 0
        self._recent: Tensor | None = None

    @property
    def num_seen_tokens(self) -> int:
        """Tokens fed so far."""
        return self._num_seen_tokens

    @property
    def num_cached_tokens(self) -> int:
        """Return 0: no keys are cached."""
        return 0

    @property
    def nbytes(self) -> int:
        """Return 0: no keys are cached."""
        return 0

    def fork(self) -> RecomputeStrategy:
        """Return an independent copy."""
        other = RecomputeStrategy(self.model, self.config)
        other._num_seen_tokens, other._recent = self._num_seen_tokens, self._recent
        return other

    def step(self, ids: Tensor, valid: Tensor | None, logits_to_keep: LogitsToKeep) -> Tensor:
        """Feed ids [batch, seq] and return logits."""
        refuse_padding(self.name, valid)
        known = ids if self._recent is None else torch.cat((self._recent, ids), dim=1)
        wanted = 1 if logits_to_keep == "last" else ids.shape[1]
        self._num_seen_tokens += ids.shape[1]
        self._recent = known[:, -self.window_size :]
        return self._logits_of_last(known[:, -(self.window_size + wanted - 1) :], wanted)

    def _logits_of_last(self, known: Tensor, wanted: int) -> Tensor:
        """Return logits after each of the last `wanted` tokens, [batch, wanted, vocab]."""
        m, length = self.window_size, known.shape[1]
        parts = []
        # Queries whose window still reaches the start share one causal pass.
        growing = max(0, min(m, length) - (length - wanted))
        if growing:
            whole = self._after_sink_token(known[:, :m])
            parts.append(run_model(self.model, whole, "all")[:, -growing:])
        if wanted > growing:
            windows = known.unfold(1, m, 1)[:, growing - wanted :]
            parts += [self._run_windows(run) for run in windows.split(WINDOWS_PER_PASS, dim=1)]
        return torch.cat(parts, dim=1)

    def _run_windows(self, windows: Tensor) -> Tensor:
        """Return logits after windows [batch, count, m], [batch, count, vocab]."""
        batch, count, m = windows.shape
        whole = self._after_sink_token(windows.reshape(batch * count, m))
        return run_model(self.model, whole, "last").view(batch, count, -1)

    def _after_sink_token(self, ids: Tensor) -> Tensor:
        first = sink_token_rows(self.model, len(ids))
        return ids if first is None else torch.cat((first, ids), dim=1)
