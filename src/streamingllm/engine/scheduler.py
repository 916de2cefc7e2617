"""What each step of an engine does for whom."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from streamingllm.engine.chunks import ChunkSizer
from streamingllm.engine.feeder import Feeder
from streamingllm.engine.member import EngineStream
from streamingllm.engine.params import FinishReason
from streamingllm.engine.writer import choose_tokens


@dataclass(frozen=True)
class Event:
    """What a step did for one stream.

    Args:
        stream: whose event it is.
        token: the token written; None if the text ended without one.
        text: what has become certain of the text, often nothing or more than this token's.
        finish_reason: why the text has ended; None while it has not.
    """

    stream: EngineStream
    token: int | None
    text: str
    finish_reason: FinishReason | None


class Scheduler:
    """Take all streams that write one token further, and one that reads a chunk.

    Those that read take turns. While others write, a chunk takes about as long as their step; where
    even the smallest would take longer, prompts are read along in that step, a token at a time.

    Args:
        feeder: runs the model.
        chunks: says how long chunks may be.
    """

    def __init__(self, feeder: Feeder, chunks: ChunkSizer) -> None:
        self._feeder = feeder
        self._chunks = chunks
        self._num_steps = 0

    def step(self, active: Sequence[EngineStream]) -> list[Event]:
        """Do one step and return what came of it; streams whose text has ended are still there."""
        self._num_steps += 1
        full = [s for s in active if s.writer.is_full and not s.is_reading]
        writing = [s for s in active if not s.writer.is_full and not s.is_reading]
        reading = sorted((s for s in active if s.is_reading), key=lambda s: s.read_at)
        size = 0
        if reading:
            size = self._chunks.size() if writing else self._chunks.largest
        along = [s for s in reading if self._feeder.can_step(s)] if size == 0 else []
        return [
            *(Event(stream, None, "", "length") for stream in full),
            *self._step(writing, along),
            *self._read_chunk([s for s in reading if s not in along], size),
        ]

    def _step(self, writing: list[EngineStream], along: list[EngineStream]) -> list[Event]:
        """Feed one token to each."""
        started = time.perf_counter()
        together = [s for s in (*writing, *along) if self._feeder.can_step(s)]
        events = self._write(together, self._feeder.step(together)) if together else []
        for stream in writing:
            if stream not in together:
                events += self._read(stream, 1)
        if writing:
            self._chunks.decoded(time.perf_counter() - started)
        return events

    def _read_chunk(self, reading: list[EngineStream], size: int) -> list[Event]:
        """Feed a chunk to the one that has waited longest."""
        if not reading:
            return []
        started = time.perf_counter()
        stream = reading[0]
        stream.read_at = self._num_steps
        # A stream that is to write nothing keeps its last token to go on from.
        num_tokens = min(size or self._chunks.smallest, len(stream.unread) - stream.writer.is_full)
        events = self._read(stream, num_tokens)
        self._chunks.read(num_tokens, time.perf_counter() - started)
        return events

    def _read(self, stream: EngineStream, num_tokens: int) -> list[Event]:
        """Feed tokens to one stream in a pass of its own, which may fail."""
        try:
            logits = self._feeder.read(stream, num_tokens)
        except Exception as error:
            return [_failed(stream, error)]
        return self._write([stream], logits)

    def _write(self, streams: list[EngineStream], logits: Tensor) -> list[Event]:
        """Choose a token for each stream that has read all it had."""
        done = [i for i, stream in enumerate(streams) if not stream.unread]
        if not done:
            return []
        if len(done) < len(streams):
            streams, logits = [streams[i] for i in done], logits[done]
        tokens = choose_tokens([s.writer for s in streams], logits, [s.recent_ids for s in streams])
        return [self._take(s, token) for s, token in zip(streams, tokens, strict=True)]

    def _take(self, stream: EngineStream, token: int | Exception) -> Event:
        if isinstance(token, Exception):
            return _failed(stream, token)
        try:
            text, finish_reason = stream.writer.take(token)
        except Exception as error:
            return _failed(stream, error)
        stream.unread.append(token)
        return Event(stream, token, text, finish_reason)


def _failed(stream: EngineStream, error: Exception) -> Event:
    stream.error = error
    return Event(stream, None, stream.writer.rest(), "failed")
