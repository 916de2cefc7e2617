"""Many endless streams on one model, a step at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from types import TracebackType

import torch
from torch import Tensor

from streamingllm.config import StreamConfig
from streamingllm.engine.generation_state import GenerationState
from streamingllm.engine.grammar import GrammarCompiler
from streamingllm.engine.model_runner import ModelRunner
from streamingllm.engine.params import GenerationParams
from streamingllm.engine.prefill_budget import Pace
from streamingllm.engine.roster import Roster
from streamingllm.engine.scheduler import Scheduler, StepOutput
from streamingllm.engine.slot_pool import SlotPool
from streamingllm.engine.stream import EngineStream, State
from streamingllm.engine.turns import Turns
from streamingllm.errors import ConfigError, InputError
from streamingllm.inputs import check_tokens, vocab_size_of
from streamingllm.models import LanguageModel

Prompt = str | Tensor | Sequence[int]

_PARAMS = GenerationParams()


class Engine:
    """Hold many streams at different positions and take them all one token further in a step.

    One thread calls `step`; any thread may call the rest, which waits for a running step to end.
    Each stream gets the tokens it would get alone, to the limits of floating point: steps for one
    and for many streams, and chunks of other lengths, add up the same products in other orders.

    Args:
        lm: model and tokenizer.
        config: what each stream keeps; while nobody writes, `chunk_size` tokens of a prompt are
            read at once.
        max_streams: streams that are held at once; None for as many as the budget allows, or 8
            without one.
        memory_budget_bytes: bound on the keys and values of all streams, which are allocated here.
        max_waiting: streams that may wait for others to end.
        max_stall: how many times as long as without it a step may take while a prompt is read.

    Raises:
        ConfigError: a value is out of range, or the budget does not hold one stream.
        UnsupportedModelError: the model cannot stream.
    """

    def __init__(
        self,
        lm: LanguageModel,
        config: StreamConfig | None = None,
        *,
        max_streams: int | None = None,
        memory_budget_bytes: int | None = None,
        max_waiting: int = 64,
        max_stall: float = 2.0,
    ) -> None:
        self.lm = lm
        self.config = config or StreamConfig()
        _check_settings(self.config, max_stall)
        self._pool = SlotPool(
            lm.model,
            self.config,
            max_streams=max_streams,
            memory_budget_bytes=memory_budget_bytes,
        )
        self._roster = Roster(self._pool, max_waiting)
        self._runner = ModelRunner(lm.model, self._pool)
        pace = Pace(self.config.chunk_size, max_stall, self._runner.max_prefill_tokens_per_step)
        self._scheduler = Scheduler(self._runner, pace)
        self._vocab_size = vocab_size_of(lm.model)
        self._grammars = GrammarCompiler(lm, self._vocab_size)
        self._turns = Turns()
        self._ended: list[StepOutput] = []

    # What an engine is and holds.

    @property
    def max_streams(self) -> int:
        """Streams that are held at once."""
        return self._pool.num_slots

    @property
    def bytes_per_stream(self) -> int:
        """Bytes of one stream's keys and values, those kept for `rewind` included."""
        return self._pool.bytes_per_stream

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values, the same from the beginning to the end."""
        return self._pool.nbytes

    @property
    def streams(self) -> list[EngineStream]:
        """All that have not finished, those that wait for a place last."""
        return [*self._roster.held, *self._roster.waiting]

    @property
    def batching_unsupported_reason(self) -> str | None:
        """Why each stream needs a pass of its own, as on some models; None if one step does all."""
        return self._runner.unsupported_reason

    @property
    def has_work(self) -> bool:
        """Whether a step would do anything."""
        return bool(self._ended) or self._roster.has_work

    def compile(self, *, wait: bool = False) -> bool:
        """Compile the decode step; tell whether that can be done. Until it is, steps run slower.

        See `Stream.compile`; this takes up to twice as long, for one stream and for many.

        Args:
            wait: return only when it is done.
        """
        with self._turns.between_steps():
            return self._runner.compile(wait=wait)

    @property
    def is_compiled(self) -> bool:
        """Whether steps run compiled now."""
        return self._runner.is_compiled

    # Streams come, rest, branch and go.

    def submit(
        self, prompt: Prompt, params: GenerationParams = _PARAMS, *, retain: bool = False
    ) -> EngineStream:
        """Let a stream join: it reads the prompt and writes what comes after.

        Args:
            prompt: text, or token ids [seq].
            params: how it writes.
            retain: let the stream stay, idle, when its text has ended, for `feed`, `fork` and
                `rewind`; it has its place until `release`.

        Raises:
            CapacityError: no place is free, nor one to wait in.
            InputError: the prompt is empty or out of the vocabulary, or the grammar is wrong.
        """
        with self._turns.between_steps():
            self._roster.check_room()
            ids = self._ids(prompt, is_beginning=True)
            stream = EngineStream(self._new_writer(params), deque(ids), retain, self._no_ids())
            self._roster.join(stream)
            return stream

    def feed(
        self, stream: EngineStream, prompt: Prompt = (), params: GenerationParams = _PARAMS
    ) -> None:
        """Let an idle stream read on and write again.

        Args:
            stream: an idle one.
            prompt: text, or token ids [seq]; nothing to go on where it ended.
            params: how it writes from here.

        Raises:
            InputError: the stream is not idle, or see `submit`.
        """
        with self._turns.between_steps():
            _check(stream, "feed", "idle")
            ids = self._ids(prompt, is_beginning=False) if len(prompt) else []
            if not ids and not stream.pending:
                raise InputError("prompt: is empty, and so is the stream: must have a token")
            stream.writer = self._new_writer(params)
            stream.pending.extend(ids)
            stream.finish_reason = None

    def fork(self, stream: EngineStream, params: GenerationParams | None = None) -> EngineStream:
        """Let an independent copy of a stream join.

        Args:
            stream: any that has not finished.
            params: how the copy writes from here; None to write what the stream would, with the
                state of its randomness.

        Raises:
            CapacityError: all places are taken; a copy cannot wait.
            InputError: the stream has finished, or waits for a place itself.
        """
        with self._turns.between_steps():
            _check(stream, "fork", "reading", "writing", "paused", "idle")
            writer = stream.writer.clone() if params is None else self._new_writer(params)
            other = EngineStream(
                writer, stream.pending.copy(), stream.retain, stream.recent_ids.copy()
            )
            if params is None:
                other.is_paused, other.finish_reason = stream.is_paused, stream.finish_reason
            self._roster.branch(stream, other)
            return other

    def pause(self, stream: EngineStream) -> None:
        """Let a stream rest; it keeps its place.

        Raises:
            InputError: it is idle or has finished.
        """
        with self._turns.between_steps():
            _check(stream, "pause", "waiting", "reading", "writing", "paused")
            stream.is_paused = True

    def resume(self, stream: EngineStream) -> None:
        """Let a stream that rests go on.

        Raises:
            InputError: it is idle or has finished.
        """
        with self._turns.between_steps():
            _check(stream, "resume", "waiting", "reading", "writing", "paused")
            stream.is_paused = False

    def cancel(self, stream: EngineStream) -> None:
        """End a stream's text where it is; the next step returns the event.

        Nothing happens to one whose text has ended.
        """
        with self._turns.between_steps():
            if stream.finish_reason is None:
                event = StepOutput(stream, None, stream.writer.flush(), "cancelled")
                self._ended.append(event)
                self._roster.end(stream, "cancelled")

    def release(self, stream: EngineStream) -> None:
        """Give up the place of an idle stream.

        Raises:
            InputError: its text has not ended.
        """
        with self._turns.between_steps():
            _check(stream, "release", "idle", "finished")
            self._roster.free(stream)

    def rewind(self, stream: EngineStream, num_tokens: int) -> None:
        """Take back the last tokens of an idle stream, read or written, as if they never were.

        Raises:
            InputError: the stream is not idle.
            RewindError: more than there are or are remembered; see `Stream.rewind`.
        """
        with self._turns.between_steps():
            _check(stream, "rewind", "idle")
            stream.rewind(num_tokens)

    # Work.

    def step(self) -> list[StepOutput]:
        """Take every stream that writes one token further, and one prompt as far as they allow.

        Returns:
            what was written and what ended, also in between steps.

        Raises:
            Exception: what the pass of all streams raised; nothing is counted, so that the next
                call does the same step again. What fails in one stream ends that stream only.
        """
        with self._turns.step():
            self._roster.admit()
            events = self._scheduler.step([s for s in self._roster.held if s.is_active])
            for event in events:
                if event.finish_reason is not None:
                    self._roster.end(event.stream, event.finish_reason)
            ended, self._ended = self._ended, []
            return [*ended, *events]

    def run(self) -> Iterator[StepOutput]:
        """Step until nothing is left to do."""
        while self.has_work:
            yield from self.step()

    def wait(self, timeout_seconds: float | None = None) -> bool:
        """Sleep until another thread brings work; tell whether there is some."""
        while not self.has_work:
            if not self._turns.wait_for_change(timeout_seconds):
                return False
        return True

    def close(self) -> None:
        """End all streams and free their memory; the model is as it was before."""
        if self._turns.is_closed:
            return
        with self._turns.between_steps():
            for stream in self.streams:
                self._roster.end(stream, stream.finish_reason or "cancelled")
                self._roster.free(stream)
            self._pool.close()
            self._turns.is_closed = True

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _no_ids(self) -> deque[int]:
        return deque(maxlen=self.config.window_size + self.config.max_rewind_tokens + 1)

    def _new_writer(self, params: GenerationParams) -> GenerationState:
        largest = max((*params.sampling.logit_bias, *params.stop_token_ids), default=0)
        if largest >= self._vocab_size:
            raise InputError(
                f"params name token {largest}: must be 0 to {self._vocab_size - 1}, the model's "
                "vocabulary"
            )
        grammar = params.grammar
        matcher = None if grammar is None else self._grammars.matcher(grammar)
        return GenerationState(self.lm, params, self.config.window_size, matcher)

    def _ids(self, prompt: Prompt, *, is_beginning: bool) -> list[int]:
        if isinstance(prompt, str):
            prompt = self.lm.encode(prompt, add_special_tokens=is_beginning)
        elif not isinstance(prompt, Tensor):
            prompt = torch.tensor([*prompt], dtype=torch.int64)
        if prompt.ndim != 1:
            raise InputError(f"prompt has shape {tuple(prompt.shape)}: must be [seq], one stream")
        batch = check_tokens(prompt, None, self._vocab_size, torch.device("cpu"))
        ids: list[int] = batch.ids[0].tolist()
        return ids


def _check(stream: EngineStream, what: str, *states: State) -> None:
    if stream.state not in states:
        raise InputError(
            f"{what}: stream {stream.number} is {stream.state}; must be {' or '.join(states)}"
        )


def _check_settings(config: StreamConfig, max_stall: float) -> None:
    if config.strategy != "sinks":
        raise ConfigError(
            f"strategy={config.strategy!r}: must be 'sinks' in an engine, with num_sink_tokens=0 "
            "for window attention"
        )
    if not 1.0 <= max_stall < float("inf"):
        raise ConfigError(f"max_stall={max_stall}: must be a finite number >= 1")
