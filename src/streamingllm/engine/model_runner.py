"""Run the model on pending tokens: one of each of many streams, or a chunk of one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, islice

import torch
from torch import Tensor
from transformers import PreTrainedModel

from streamingllm.engine.slot_pool import SlotPool
from streamingllm.engine.stream import EngineStream
from streamingllm.graphs.decode_step import DecodeStep, StepToken
from streamingllm.graphs.step_support import unsupported_reason
from streamingllm.integration.lora import check_adapter, using_adapter
from streamingllm.integration.sink_cache import SinkCache
from streamingllm.strategies.base import run_model


class ModelRunner:
    """Run the model on tokens that it has not seen yet.

    Args:
        model: that all streams run on.
        pool: holds their keys and values.

    Attributes:
        unsupported_reason: why streams cannot step together and have a pass each; None if they can.
    """

    def __init__(self, model: PreTrainedModel, pool: SlotPool) -> None:
        self._model = model
        self._pool = pool
        whole = pool.whole
        self.unsupported_reason = unsupported_reason(model, whole.attachment, whole.encodings)
        self._step: DecodeStep | None = None
        if self.unsupported_reason is None:
            self._step = DecodeStep(model, whole.attachment, whole.encodings, whole.geometry_of)

    @property
    def max_tokens_per_slot(self) -> int:
        """Tokens of one prompt that a mixed step can take; 0 if streams cannot step together."""
        return 0 if self._step is None else self._step.max_tokens_per_slot

    @property
    def num_first_steps(self) -> int:
        """Steps so far that took longer than others will; see `DecodeStep`."""
        return 0 if self._step is None else self._step.num_first_steps

    def can_step(self, stream: EngineStream) -> bool:
        """Return whether a stream can step with others.

        The model has seen its sinks, and it has no adapter: the step holds the model's own weights.
        """
        if self._step is None or stream.slot is None or stream.adapter is not None:
            return False
        return _cache(stream).has_all_sinks

    def step(
        self,
        streams: Sequence[EngineStream],
        prompts: Sequence[tuple[EngineStream, int]] = (),
    ) -> Tensor:
        """Feed one token to each of several streams, and some to others, all at once.

        Args:
            streams: get one token each.
            prompts: streams that get several, one after the other, at most `max_tokens_per_slot`.

        Returns:
            logits of each of `streams`, and of `prompts` after its last token, [all, vocab].
        """
        assert self._step is not None
        self._step.poll()
        shares = [*((stream, 1) for stream in streams), *prompts]
        tokens = [_step_token(stream, i) for stream, number in shares for i in range(number)]
        # Parts run one by one, so that a prompt's tokens find those before them in the cache.
        most = self._step.max_batch
        parts = [
            self._step.run(tokens[first : first + most], self._pool.buffers)
            for first in range(0, len(tokens), most)
        ]
        for stream, number in shares:
            _count(stream, number)
        logits = parts[0] if len(parts) == 1 else torch.cat(parts)
        if len(tokens) == len(shares):
            return logits
        return logits[[end - 1 for end in accumulate(number for _, number in shares)]]

    def prefill(self, stream: EngineStream, num_tokens: int) -> Tensor:
        """Feed the next tokens of one stream in a pass of its own; return logits [1, vocab].

        A pass that fails leaves the stream as it was.
        """
        ids = torch.tensor([[*islice(stream.pending, num_tokens)]], device=self._model.device)
        check_adapter(stream.adapter, self._model)
        with using_adapter(stream.adapter):
            logits = run_model(self._model, ids, "last", cache=_cache(stream))
        stream.take_pending(ids.shape[1])
        return logits[:, -1]

    def compile(self, *, wait: bool) -> bool:
        """Compile the step for one stream and for many; return whether that can be done."""
        if self._step is None:
            return False
        for batch_size in self._batch_sizes:
            self._step.compile(batch_size, self._pool.buffers)
        self._step.capture(self._pool.num_slots, self._pool.buffers)
        if wait:
            self._step.wait()
        return True

    @property
    def is_compiled(self) -> bool:
        """Return whether steps run compiled now, for one stream and for many."""
        step = self._step
        return step is not None and all(step.is_compiled(size) for size in self._batch_sizes)

    @property
    def _batch_sizes(self) -> tuple[int, ...]:
        return (1, 2) if self._pool.num_slots > 1 else (1,)


def _cache(stream: EngineStream) -> SinkCache:
    assert stream.slot is not None
    return stream.slot.cache


def _step_token(stream: EngineStream, index: int) -> StepToken:
    """Return a stream's pending token as a step takes it."""
    assert stream.slot is not None
    position = stream.num_seen_tokens + index + stream.slot.pool.num_hidden
    layouts = stream.slot.cache.step_layouts(0, position)
    return StepToken(stream.pending[index], stream.slot.index, position, layouts)


def _count(stream: EngineStream, num_tokens: int) -> None:
    for _ in range(num_tokens):
        _cache(stream).count_step()
    stream.take_pending(num_tokens)
