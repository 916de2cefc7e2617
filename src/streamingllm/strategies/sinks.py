"""Attention sinks and a window; without sinks it is the paper's window attention."""

from __future__ import annotations

from torch import Tensor
from transformers import PreTrainedModel

from streamingllm.config import StreamConfig
from streamingllm.graphs.decode_step import DecodeStep, unsupported_reason
from streamingllm.integration.sink_cache import SinkCache
from streamingllm.strategies.base import LogitsToKeep, Strategy, run_model


class SinkStrategy(Strategy):
    """The first n tokens and the last m (paper, figure 1d)."""

    name = "sinks"

    def __init__(self, model: PreTrainedModel, config: StreamConfig) -> None:
        self.model = model
        self.cache = SinkCache(
            model,
            config.num_sink_tokens,
            config.window_size,
            sink_positions=config.sink_positions,
            max_rewind_tokens=config.max_rewind_tokens,
            quantize_cache=config.quantize_cache,
        )
        self._decoding: DecodeStep | None = None
        self._can_decode = (
            unsupported_reason(model, self.cache.attachment, self.cache.encodings) is None
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

    def step(self, ids: Tensor, valid: Tensor | None, logits_to_keep: LogitsToKeep) -> Tensor:
        """Feed ids [batch, seq] and return logits."""
        if ids.shape[1] == 1 and valid is None and self._can_decode and self.cache.has_all_sinks:
            return self._decode(ids[:, 0])[:, None]
        mask = None if valid is None else valid.long()
        return run_model(self.model, ids, logits_to_keep, cache=self.cache, attention_mask=mask)

    def fork(self) -> SinkStrategy:
        """Return an independent copy."""
        other = SinkStrategy.__new__(SinkStrategy)
        other.model, other.cache = self.model, self.cache.clone()
        other._decoding, other._can_decode = self._decoding, self._can_decode
        return other

    def compile(self, *, wait: bool, cached_only: bool) -> bool:
        """Compile the decode step, or load one that was kept; tell whether steps run compiled."""
        if not self._can_decode or not self.cache.is_initialized:
            return False
        step = self._step()
        step.compile(self.cache.batch_size, self.cache.ring_buffers, cached_only=cached_only)
        if wait:
            step.wait()
        return self.is_compiled

    @property
    def is_compiled(self) -> bool:
        """Whether decode steps run compiled now."""
        return self._decoding is not None and self._decoding.is_compiled(self.cache.batch_size)

    @property
    def is_captured(self) -> bool:
        """Whether decode steps are replayed from CUDA graphs."""
        return self._decoding is not None and self._decoding.num_graphs > 0

    def _step(self) -> DecodeStep:
        if self._decoding is None:
            cache = self.cache
            self._decoding = DecodeStep(
                self.model, cache.attachment, cache.encodings, cache.geometries
            )
        return self._decoding

    def _decode(self, ids: Tensor) -> Tensor:
        """Feed ids [batch] by a step that writes the rings itself; return logits."""
        step, batch = self._step(), self.cache.batch_size
        step.poll()
        positions = self.cache.positions.per_stream(batch)
        logits = step.run(ids.tolist(), range(batch), positions, self.cache.ring_buffers)
        self.cache.count_step()
        return logits
