"""Feed tokens to streams of a pool: one token to each of many, or a chunk to one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import torch
from torch import Tensor
from transformers import PreTrainedModel

from streamingllm.engine.slot_pool import SlotPool
from streamingllm.engine.stream import EngineStream
from streamingllm.graphs.decode_step import MAX_BATCH, DecodeStep, unsupported_reason
from streamingllm.strategies.base import run_model


class ModelRunner:
    """Run the model on what streams have not read yet.

    Args:
        model: what all streams run on.
        pool: where their keys and values are.

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
            self._step = DecodeStep(model, whole.attachment, whole.encodings, whole.geometries)

    @property
    def most_along(self) -> int:
        """Tokens of a prompt that one step can take along with those of others."""
        return 0 if self._step is None else self._step.most_tokens_per_stream

    def can_step(self, stream: EngineStream) -> bool:
        """Whether a stream's next token can be fed together with others': its sinks are read."""
        return self._step is not None and stream.cache is not None and stream.cache.has_all_sinks

    def step(
        self,
        streams: Sequence[EngineStream],
        reader: EngineStream | None = None,
        num_tokens: int = 0,
    ) -> Tensor:
        """Feed one token to each of several streams, and some more to another, all at once.

        Args:
            streams: get one token each.
            reader: gets `num_tokens`, one after the other.
            num_tokens: 0 for no reader; at most `most_along`.

        Returns:
            logits of `streams` and, after its last token, of the reader, [streams + 1, vocab].
        """
        assert self._step is not None
        self._step.poll()
        tokens = [(stream, 0) for stream in streams]
        if reader is not None:
            tokens += [(reader, i) for i in range(num_tokens)]
        # Parts go one by one, so that a reader's tokens find in the cache what came before them.
        parts = [
            self._run(self._step, tokens[first : first + MAX_BATCH])
            for first in range(0, len(tokens), MAX_BATCH)
        ]
        for stream, _ in tokens:
            assert stream.cache is not None
            stream.cache.count_step()
            stream.take_unread(1)
        logits = parts[0] if len(parts) == 1 else torch.cat(parts)
        return torch.cat((logits[: len(streams)], logits[-1:])) if num_tokens > 1 else logits

    def read(self, stream: EngineStream, num_tokens: int) -> Tensor:
        """Feed the next tokens of one stream in a pass of its own; return logits [1, vocab].

        A pass that fails leaves the stream as it was.
        """
        assert stream.cache is not None
        ids = torch.tensor([[*islice(stream.unread, num_tokens)]], device=self._model.device)
        logits = run_model(self._model, ids, "last", cache=stream.cache)
        stream.take_unread(ids.shape[1])
        return logits[:, -1]

    def compile(self, *, wait: bool) -> bool:
        """Compile the step for one stream and for many; tell whether that can be done."""
        if self._step is None:
            return False
        for batch_size in (1, 2) if self._pool.num_rows > 1 else (1,):
            self._step.compile(batch_size, self._pool.buffers)
        if wait:
            self._step.wait()
        return True

    @property
    def is_compiled(self) -> bool:
        """Whether steps run compiled now, whatever the number of streams."""
        sizes = (1, 2) if self._pool.num_rows > 1 else (1,)
        return self._step is not None and all(self._step.is_compiled(size) for size in sizes)

    def _run(self, step: DecodeStep, tokens: Sequence[tuple[EngineStream, int]]) -> Tensor:
        """Feed tokens, each given by its stream and its place among what is unread there."""
        return step.run(
            [stream.unread[i] for stream, i in tokens],
            [_row_of(stream) for stream, _ in tokens],
            [stream.num_seen_tokens + i for stream, i in tokens],
            self._pool.buffers,
        )


def _row_of(stream: EngineStream) -> int:
    assert stream.row is not None
    return stream.row
