"""Attention sinks and a window; without sinks it is the paper's window attention."""

from __future__ import annotations

from torch import Tensor
from transformers import PreTrainedModel

from streamingllm.baselines.base import Keep, run_model
from streamingllm.cache.sink_cache import SinkCache
from streamingllm.config import StreamConfig


class SinkStrategy:
    """The first n tokens and the last m (paper, figure 1d)."""

    def __init__(self, model: PreTrainedModel, config: StreamConfig) -> None:
        self.model = model
        self.cache = SinkCache(
            model,
            config.num_sink_tokens,
            config.window_size,
            sink_positions=config.sink_positions,
            max_rewind_tokens=config.max_rewind_tokens,
        )

    @property
    def num_seen_tokens(self) -> int:
        """Tokens that the longest stream has seen."""
        return self.cache.num_seen_tokens

    @property
    def num_cached_tokens(self) -> int:
        """Tokens that the next query can see."""
        return self.cache.num_cached_tokens

    @property
    def nbytes(self) -> int:
        """Bytes of the n + m keys and values, constant."""
        return self.cache.nbytes

    def step(self, ids: Tensor, valid: Tensor | None, keep: Keep) -> Tensor:
        """Feed ids [batch, seq] and return logits."""
        mask = None if valid is None else valid.long()
        return run_model(self.model, ids, keep, cache=self.cache, attention_mask=mask)

    def fork(self) -> SinkStrategy:
        """Return an independent copy."""
        other = SinkStrategy.__new__(SinkStrategy)
        other.model, other.cache = self.model, self.cache.clone()
        return other
