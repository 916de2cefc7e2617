"""Attention sinks and a window; without sinks it is the paper's window attention."""

from __future__ import annotations

from torch import Tensor
from transformers import PreTrainedModel

from streamingllm.config import StreamConfig
from streamingllm.graphs.decode_step import DecodeStep, StepToken
from streamingllm.graphs.step_support import declared_unsupported_reason, unsupported_reason
from streamingllm.integration.lora import active_adapter
from streamingllm.integration.sink_cache import SinkCache
from streamingllm.strategies.base import LogitsToKeep, Strategy, run_model


class SinkStrategy(Strategy):
    """Keep the first n tokens and the last m (paper, figure 1d).

    Args:
        model: a causal language model of transformers.
        config: n, m and what goes with them.
        cache: of another stream of this model and config, copied; None for an empty one.
        decode_step: of another stream of this model and config, shared.
    """

    name = "sinks"

    def __init__(
        self,
        model: PreTrainedModel,
        config: StreamConfig,
        *,
        cache: SinkCache | None = None,
        decode_step: DecodeStep | None = None,
    ) -> None:
        self.model = model
        self.cache = SinkCache.of(model, config) if cache is None else cache.clone()
        self._decode_step = decode_step
        attachment, encodings = self.cache.attachment, self.cache.encodings
        self._may_decode = declared_unsupported_reason(model, attachment, encodings) is None

    @property
    def num_seen_tokens(self) -> int:
        """Tokens that the longest stream has seen."""
        return self.cache.num_seen_tokens

    @property
    def num_cached_tokens(self) -> int:
        """Tokens that the longest stream's last query saw, itself included."""
        return self.cache.num_cached_tokens

    @property
    def nbytes(self) -> int:
        """Bytes of the n + m keys and values, constant."""
        return self.cache.nbytes

    def step(self, ids: Tensor, valid: Tensor | None, logits_to_keep: LogitsToKeep) -> Tensor:
        """Feed ids [batch, seq] and return logits."""
        is_step = ids.shape[1] == 1 and valid is None and self.cache.has_all_sinks
        is_step = is_step and active_adapter() is None  # a step holds the model's own weights
        if is_step and (decode_step := self._decode_step_ready()) is not None:
            logits = decode_step.run(self._step_tokens(ids[:, 0].tolist()), self.cache.ring_buffers)
            self.cache.count_step()
            return logits[:, None]
        mask = None if valid is None else valid.long()
        return run_model(self.model, ids, logits_to_keep, cache=self.cache, attention_mask=mask)

    def cache_for(self, feature: str) -> SinkCache:
        """Return the cache."""
        return self.cache

    def fork(self) -> SinkStrategy:
        """Return an independent copy."""
        return SinkStrategy(
            self.model, self.cache.config, cache=self.cache, decode_step=self._decode_step
        )

    def compile(self, *, wait: bool, cached_only: bool) -> bool:
        """Compile the decode step, or load a cached one; return whether steps run compiled now."""
        batch_size = self.cache.num_streams
        step = None if batch_size is None else self._step()
        if step is None or batch_size is None:
            return False
        step.compile(batch_size, self.cache.ring_buffers, cached_only=cached_only)
        if wait:
            step.wait()
        return self.is_compiled

    @property
    def is_compiled(self) -> bool:
        """Return whether decode steps run compiled now."""
        step, batch_size = self._decode_step, self.cache.num_streams
        return step is not None and batch_size is not None and step.is_compiled(batch_size)

    @property
    def is_captured(self) -> bool:
        """Return whether decode steps are replayed from CUDA graphs."""
        return self._decode_step is not None and self._decode_step.num_graphs > 0

    def _step(self) -> DecodeStep | None:
        """Return the decode step, made on first use; None if the model has none."""
        if self._decode_step is None and self._may_decode:
            cache = self.cache
            attachment, encodings = cache.attachment, cache.encodings
            self._may_decode = unsupported_reason(self.model, attachment, encodings) is None
            if self._may_decode:
                self._decode_step = DecodeStep(self.model, attachment, encodings, cache.geometry_of)
        return self._decode_step

    def _decode_step_ready(self) -> DecodeStep | None:
        """Return the decode step, compiled if a compilation has ended by now."""
        step = self._step()
        if step is not None:
            step.poll()
        return step

    def _step_tokens(self, ids: list[int]) -> list[StepToken]:
        """Return one token for each stream as a decode step takes them."""
        positions = self.cache.positions.per_stream(len(ids))
        return [
            StepToken(token_id, row, position, self.cache.step_layouts(row, position))
            for row, (token_id, position) in enumerate(zip(ids, positions, strict=True))
        ]
