"""What each step of an engine does for whom."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from streamingllm.engine.generation_state import choose_tokens
from streamingllm.engine.model_runner import ModelRunner
from streamingllm.engine.params import FinishReason
from streamingllm.engine.prefill_budget import Pace
from streamingllm.engine.stream import EngineStream


@dataclass(frozen=True)
class StepOutput:
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
    """Take all streams that write one token further, and one that reads as far as they allow.

    Those that read take turns.

    Args:
        runner: runs the model.
        pace: says how much is read at once.
    """

    def __init__(self, runner: ModelRunner, pace: Pace) -> None:
        self._runner = runner
        self._pace = pace
        self._num_steps = 0

    def step(self, active: Sequence[EngineStream]) -> list[StepOutput]:
        """Do one step and return what came of it; streams whose text has ended are still there."""
        self._num_steps += 1
        full = [s for s in active if s.writer.is_full and not s.is_reading]
        writing = [s for s in active if not s.writer.is_full and not s.is_reading]
        reader = min((s for s in active if s.is_reading), key=lambda s: s.read_at, default=None)
        events = [StepOutput(stream, None, "", "length") for stream in full]
        if reader is None:
            return events + self._step(writing)
        reader.read_at = self._num_steps
        how, most = self._pace.next(len(writing), can_go_along=self._runner.can_step(reader))
        # A stream that is to write nothing keeps its last token to go on from.
        num_tokens = min(most, len(reader.pending) - reader.writer.is_full)
        if how == "along":
            return events + self._step(writing, reader, num_tokens)
        return events + self._step(writing) + self._read_chunk(reader, num_tokens)

    def _step(
        self, writing: list[EngineStream], reader: EngineStream | None = None, num_along: int = 0
    ) -> list[StepOutput]:
        """Feed one token to each that writes, and some to one that reads."""
        if not writing:
            return []
        started = time.perf_counter()
        together = [stream for stream in writing if self._runner.can_step(stream)]
        alone = [stream for stream in writing if stream not in together]
        events = []
        if together or num_along:
            logits = self._runner.step(together, reader, num_along)
            also = [reader] if reader is not None and num_along else []
            events += self._write([*together, *also], logits)
        for stream in alone:
            events += self._read(stream, 1)
        self._pace.stepped(len(writing), time.perf_counter() - started, num_along)
        return events

    def _read_chunk(self, reader: EngineStream, num_tokens: int) -> list[StepOutput]:
        started = time.perf_counter()
        events = self._read(reader, num_tokens)
        self._pace.read(num_tokens, time.perf_counter() - started)
        return events

    def _read(self, stream: EngineStream, num_tokens: int) -> list[StepOutput]:
        """Feed tokens to one stream in a pass of its own, which may fail."""
        try:
            logits = self._runner.prefill(stream, num_tokens)
        except Exception as error:
            return [_failed(stream, error)]
        return self._write([stream], logits)

    def _write(self, streams: list[EngineStream], logits: Tensor) -> list[StepOutput]:
        """Choose a token for each stream that has read all it had."""
        done = [i for i, stream in enumerate(streams) if not stream.pending]
        if not done:
            return []
        if len(done) < len(streams):
            streams, logits = [streams[i] for i in done], logits[done]
        tokens = choose_tokens([s.writer for s in streams], logits, [s.recent_ids for s in streams])
        return [self._take(s, token) for s, token in zip(streams, tokens, strict=True)]

    def _take(self, stream: EngineStream, token: int | Exception) -> StepOutput:
        if isinstance(token, Exception):
            return _failed(stream, token)
        try:
            text, finish_reason = stream.writer.append(token)
        except Exception as error:
            return _failed(stream, error)
        stream.pending.append(token)
        return StepOutput(stream, token, text, finish_reason)


def _failed(stream: EngineStream, error: Exception) -> StepOutput:
    stream.error = error
    return StepOutput(stream, None, stream.writer.flush(), "failed")
