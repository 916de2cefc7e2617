"""Commands of an engine that open, change and close one stream between two steps."""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Callable, Sequence

from streamingllm.cache.snapshot import model_fingerprint
from streamingllm.config import StreamConfig
from streamingllm.engine.input_processor import InputProcessor
from streamingllm.engine.outputs import State, Usage
from streamingllm.engine.owner import ThreadOwner
from streamingllm.engine.scheduler import Scheduler
from streamingllm.engine.slot_pool import SlotPool
from streamingllm.engine.stream import EngineStream
from streamingllm.engine.stream_state import StreamState
from streamingllm.engine.streams import StreamTable
from streamingllm.errors import CapacityError, InputError
from streamingllm.finish_reason import FinishReason
from streamingllm.inputs import vocab_size_of
from streamingllm.integration.lora import LoraAdapter, check_adapter, fingerprint_of
from streamingllm.models import LanguageModel
from streamingllm.stream.generation_state import GenerationState
from streamingllm.stream.sampling import GREEDY, SamplingParams


class StreamCommands:
    """Open, change and close the streams of an engine, named by their ids.

    Args:
        lm: model and tokenizer.
        config: which tokens each stream keeps.
        pool: slots of the running streams.
        scheduler: of the engine.
        clock: seconds that deadlines are measured with.

    Attributes:
        inputs: prepares requests, in any thread.
    """

    def __init__(
        self,
        lm: LanguageModel,
        config: StreamConfig,
        pool: SlotPool,
        scheduler: Scheduler,
        clock: Callable[[], float],
    ) -> None:
        self.lm = lm
        self.config = config
        self.inputs = InputProcessor(lm, vocab_size_of(lm.model), config.window_size)
        self._pool = pool
        self._scheduler = scheduler
        self._streams = StreamTable(scheduler, clock)
        self._owner = ThreadOwner()
        self._fingerprint = model_fingerprint(lm.model)
        self._clock = clock

    @property
    def stream_ids(self) -> list[str]:
        """Ids of all open streams."""
        return self._streams.ids

    def state(self, stream_id: str) -> State:
        """Return what a stream is doing."""
        return self._stream(stream_id).state

    def usage(self, stream_id: str) -> Usage:
        """Return the counts of a stream and of its last request."""
        return self._stream(stream_id).usage

    def num_tokens(self, stream_id: str) -> int:
        """Return how many tokens a stream has, those that the model has not seen included."""
        stream = self._stream(stream_id)
        return stream.num_seen_tokens + len(stream.pending)

    def open_stream(
        self,
        *,
        pinned: Sequence[int] = (),
        state: StreamState | None = None,
        priority: int = 0,
        adapter: LoraAdapter | None = None,
    ) -> str:
        """Open a stream and return its id; it has a slot, or waits for one.

        Args:
            pinned: token ids of a prefix that is never evicted; they are prefilled with the first
                prompt.
            state: of an exported stream, to continue it.
            priority: streams of a lower number are admitted and prefilled first.
            adapter: that the stream computes with; such a stream has passes of its own.

        Raises:
            CapacityError: no slot is free, and the queue is full.
            InputError: the prefix is too long or out of the vocabulary, the state has another
                layout, or the adapter belongs to another model.
            SnapshotError: the state belongs to another model or adapter.
        """
        ids = self.inputs.check_ids("pinned", pinned)
        generation = None if state is None else self.inputs.restored(state.generation)
        return self.open_prepared(ids, state, priority, generation, adapter)

    def open_prepared(
        self,
        pinned: list[int],
        state: StreamState | None,
        priority: int,
        generation: GenerationState | None,
        adapter: LoraAdapter | None = None,
    ) -> str:
        """Open a stream whose inputs were checked, and whose text was restored, by `inputs`."""
        self._owner.check()
        if pinned and state is not None:
            raise InputError("pinned contradicts state, which has a prefix of its own; pass one")
        check_adapter(adapter, self.lm.model)
        if state is not None:
            state.check(self._fingerprint, self.config, fingerprint_of(adapter))
        self._pool.check_pinned(len(pinned) if state is None else state.num_pinned_tokens)
        self._scheduler.check_capacity()
        tail = self.config.window_size + self.config.max_rewind_tokens + 1
        stream = EngineStream(
            uuid.uuid4().hex,
            len(pinned),
            deque(maxlen=tail),
            deque(pinned),
            priority,
            adapter=adapter,
        )
        if state is not None:
            state.restore(stream, generation)
        self._scheduler.add(stream)
        return self._streams.add(stream)

    def submit(
        self,
        stream_id: str,
        token_ids: Sequence[int],
        params: SamplingParams = GREEDY,
        *,
        deadline: float | None = None,
    ) -> None:
        """Let a stream read a prompt and generate; `step` returns the outputs.

        DESIGN calls this `generate` per stream; here that name is the one of whole texts.

        Args:
            stream_id: a stream that generates nothing now.
            token_ids: the prompt; empty to continue where the stream stands.
            params: sampling parameters.
            deadline: seconds from now after which the text ends, also while it waits.

        Raises:
            CapacityError: `params.n` samples cannot wait.
            InputError: the stream is generating, or has no token; or see `SamplingParams`.
        """
        ids = self.inputs.encode(token_ids, is_beginning=False)
        self.submit_prepared(stream_id, ids, self.inputs.generations(params), deadline=deadline)

    def submit_prepared(
        self,
        stream_id: str,
        token_ids: list[int],
        generations: Sequence[GenerationState],
        *,
        deadline: float | None = None,
    ) -> None:
        """Submit a prompt that was checked, and whose samples were made, by `inputs`."""
        stream = self._stream(stream_id)
        if stream.is_generating or any(s.is_generating for s in stream.samples):
            raise InputError(f"stream_id={stream_id} is {stream.state}; wait for its end or abort")
        if not token_ids and not stream.pending:
            raise InputError("token_ids is empty, and so is the stream; pass at least one token")
        if deadline is not None and not deadline >= 0:
            raise InputError(f"deadline={deadline} is no number of seconds >= 0; pass None")
        if len(generations) > 1:
            self._scheduler.check_capacity(len(generations) - 1)
        stream.num_prompt_tokens = len(stream.pending) * (not stream.num_seen_tokens)
        stream.num_prompt_tokens += len(token_ids)
        stream.pending.extend(token_ids)
        stream.generation, *stream.unforked = generations
        stream.samples = []
        stream.finish_reason = None
        stream.deadline = None if deadline is None else self._clock() + deadline

    def fork(self, stream_id: str) -> str:
        """Open an independent copy of a stream and return its id.

        The copy of a stream that is generating goes on generating in the same way.

        Raises:
            CapacityError: no slot is free; a copy cannot wait.
            InputError: the stream waits for a slot itself.
        """
        stream = self._stream(stream_id, "fork", "prefilling", "decoding", "paused", "idle")
        generation = None if stream.generation is None else stream.generation.clone()
        other = stream.copy(uuid.uuid4().hex, generation)
        if stream.slot is None or not self._scheduler.fork(stream, other):
            raise CapacityError(
                f"fork: all num_slots={self._pool.num_slots} slots are taken; close an idle stream "
                "or retry later"
            )
        return self._streams.add(other)

    def abort(self, stream_id: str) -> None:
        """End a stream's text where it is; the next step returns its last output.

        The stream stays open, its pending tokens too. Nothing happens if the text has ended.
        """
        self._streams.end(self._stream(stream_id), FinishReason.CANCELLED)

    def pause(self, stream_id: str) -> None:
        """Leave a stream out of steps; it keeps its slot.

        Raises:
            InputError: the stream generates nothing.
        """
        self._set_paused(stream_id, "pause")

    def resume(self, stream_id: str) -> None:
        """Let a paused stream go on.

        Raises:
            InputError: the stream generates nothing.
        """
        self._set_paused(stream_id, "resume")

    def rewind(self, stream_id: str, num_tokens: int) -> None:
        """Take back the last tokens of an idle stream, as if they had never been.

        Raises:
            InputError: the stream is not idle.
            RewindError: there are fewer, or the rewind buffer holds fewer.
        """
        self._stream(stream_id, "rewind", "idle").rewind(num_tokens)

    def mark_turn(self, stream_id: str, num_tokens_ahead: int = 0) -> None:
        """Start a turn of a conversation, for eviction by turns.

        Args:
            stream_id: of an open stream.
            num_tokens_ahead: tokens to submit before the turn starts; 0 starts it with the next.

        Raises:
            InputError: a turn that starts later is marked.
        """
        stream = self._stream(stream_id)
        start = stream.num_seen_tokens + len(stream.pending) + num_tokens_ahead
        if stream.turn_starts and stream.turn_starts[-1] > start:
            raise InputError(
                f"num_tokens_ahead={num_tokens_ahead} is before a turn that is marked; mark turns "
                "in the order of the stream"
            )
        stream.turn_starts.append(start)

    def export_state(self, stream_id: str) -> StreamState:
        """Return a copy of a stream's state; of several samples, the first one's."""
        return StreamState.of(self._stream(stream_id), self._fingerprint, self.config)

    def close_stream(self, stream_id: str, *, wipe: bool = False) -> None:
        """Close a stream and free its slot; a text that has not ended is cancelled.

        Args:
            stream_id: of the stream.
            wipe: set its keys and values to zero, because they encode a text that is erased.
        """
        self._streams.close(self._stream(stream_id), wipe=wipe)

    def _stream(self, stream_id: str, action: str = "", *states: State) -> EngineStream:
        self._owner.check()
        return self._streams.get(stream_id, action, *states)

    def _set_paused(self, stream_id: str, action: str) -> None:
        stream = self._stream(stream_id)
        generating = [s for s in (stream, *stream.samples) if s.is_generating]
        if not generating:
            raise InputError(
                f"{action}: stream_id={stream_id} is {stream.state} and generates nothing; submit "
                "a prompt first"
            )
        for sample in generating:
            sample.is_paused = action == "pause"
