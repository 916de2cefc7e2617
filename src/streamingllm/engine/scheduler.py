"""Schedule of an engine: which streams have a slot, and what each step does for them."""

from __future__ import annotations

import time
from collections.abc import Sequence

from torch import Tensor

from streamingllm.checks import check_integer
from streamingllm.engine.mixed_step import joining, shares
from streamingllm.engine.model_runner import ModelRunner
from streamingllm.engine.outputs import StepOutput
from streamingllm.engine.prefill_budget import PrefillBudget
from streamingllm.engine.slot_pool import Slot, SlotPool
from streamingllm.engine.stream import EngineStream
from streamingllm.errors import CapacityError
from streamingllm.finish_reason import FinishReason
from streamingllm.stream.generation_state import GenerationState
from streamingllm.stream.next_token import TokenLogprobs, choose_tokens, token_logprobs


class Scheduler:
    """Decode one token for every running stream in a step, and prefill a part of one prompt.

    Streams are admitted in the order of priority and arrival. Prompts of equal priority are
    prefilled in turn.

    Args:
        pool: slots of the running streams.
        runner: runs the model.
        budget: chooses how much of a prompt a step prefills.
        max_waiting: streams that may wait for a slot.

    Attributes:
        waiting: streams without a slot, in the order of arrival.
        running: streams with a slot, in the order of admission; idle ones included.
        num_steps: steps so far.
        num_prefilled_tokens: tokens of prompts fed so far.
        num_generated_tokens: tokens generated so far.

    Raises:
        ConfigError: `max_waiting` is negative.
    """

    def __init__(
        self, pool: SlotPool, runner: ModelRunner, budget: PrefillBudget, max_waiting: int
    ) -> None:
        check_integer("max_waiting", max_waiting, 0)
        self.waiting: list[EngineStream] = []
        self.running: list[EngineStream] = []
        self.num_steps = self.num_prefilled_tokens = self.num_generated_tokens = 0
        self._pool = pool
        self._runner = runner
        self._budget = budget
        self._max_waiting = max_waiting
        self._outputs: list[StepOutput] = []

    @property
    def has_work(self) -> bool:
        """Return whether a step would do anything."""
        if self._outputs or any(stream.is_active for stream in self.running):
            return True
        return self._pool.num_free > 0 and any(
            stream.is_generating and not stream.is_paused for stream in self.waiting
        )

    # Slots.

    def check_capacity(self, num_streams: int = 1) -> None:
        """Refuse more streams than can run or wait.

        Raises:
            CapacityError: the queue is full.
        """
        room = self._pool.num_free + self._max_waiting - len(self.waiting)
        if num_streams > room:
            raise CapacityError(
                f"The queue is full: max_waiting={self._max_waiting} streams wait for "
                f"{self._pool.num_slots} slots; retry later or raise max_waiting"
            )

    def add(self, stream: EngineStream) -> None:
        """Let a stream wait for a slot, or run at once if one is free."""
        self.waiting.append(stream)
        self.admit()

    def admit(self) -> None:
        """Give free slots to waiting streams that are not paused."""
        if not self.waiting or not self._pool.num_free:
            return
        for stream in sorted(self.waiting, key=lambda stream: stream.priority):
            if stream.is_generating and stream.is_paused:
                continue
            slot = self._pool.open(stream.num_pinned_tokens)
            if slot is None:
                return
            self.waiting.remove(stream)
            stream.slot = slot
            self.running.append(stream)
            self._import_cache(stream, slot)

    def _import_cache(self, stream: EngineStream, slot: Slot) -> None:
        if stream.cache_state is None:
            return
        try:
            slot.import_state(stream.cache_state)
        except Exception as error:
            if stream.is_generating:
                self.end(stream, FinishReason.FAILED, error)
            else:
                self.remove(stream, wipe=True)
        stream.cache_state = None

    def fork(self, stream: EngineStream, other: EngineStream) -> bool:
        """Let `other` run in a copy of the slot of `stream`; tell whether a slot was free."""
        slot = self._pool.open(stream.num_pinned_tokens)
        if slot is None:
            return False
        assert stream.slot is not None
        slot.copy_from(stream.slot)
        other.slot = slot
        self.running.append(other)
        return True

    def remove(self, stream: EngineStream, *, wipe: bool = False) -> None:
        """Free the stream's slot, or its place among those that wait."""
        if stream.slot is not None:
            stream.slot.close(wipe=wipe)
            stream.slot = None
            self.running.remove(stream)
        elif stream in self.waiting:
            self.waiting.remove(stream)
        stream.is_closed = True
        stream.cache_state = None

    def end(
        self, stream: EngineStream, reason: FinishReason, error: Exception | None = None
    ) -> None:
        """End the text of a stream where it is; a failed stream loses its slot."""
        assert stream.generation is not None
        self._put(stream, text=stream.generation.flush(), reason=reason, error=error)

    def fail_active(self, error: Exception) -> None:
        """Fail every stream that a step would have done anything for."""
        for stream in [s for s in self.running if s.is_active]:
            self.end(stream, FinishReason.FAILED, error)

    def take_outputs(self) -> list[StepOutput]:
        """Return the outputs since the last call."""
        outputs, self._outputs = self._outputs, []
        return outputs

    def _put(
        self,
        stream: EngineStream,
        token_ids: tuple[int, ...] = (),
        text: str = "",
        reason: FinishReason | None = None,
        logprobs: tuple[TokenLogprobs, ...] = (),
        error: Exception | None = None,
    ) -> None:
        self._outputs.append(stream.output(token_ids, text, reason, logprobs, error))
        if reason is None:
            return
        stream.finish_reason = reason
        stream.is_paused = False
        for sample in stream.take_unforked():
            self._outputs.append(sample.output((), "", reason, (), error))
        if reason is FinishReason.FAILED or stream.sample_index > 0:
            self.remove(stream, wipe=reason is FinishReason.FAILED)
            self.admit()
        elif any(sample in self.waiting for sample in stream.samples):
            self._lend_slot(stream)

    # Steps.

    def step(self) -> None:
        """Do one step; `take_outputs` returns what came of it.

        Raises:
            Exception: the pass of all streams failed, and counts as not done. A pass of one stream
                that fails ends that stream only.
        """
        self.num_steps += 1
        self.admit()
        for stream in [s for s in self.running if s.is_active]:
            stream.begin_turns()
            if stream.unforked and not stream.is_prefilling:
                self._fork_samples(stream)
        active = [(s, s.generation) for s in self.running if s.is_active and s.generation]
        prompts = [s for s, _ in active if s.is_prefilling]
        for stream, generation in active:
            if generation.is_full and not stream.is_prefilling:
                self._put(stream, reason=FinishReason.LENGTH)
        decoding = [s for s, g in active if not g.is_full and not s.is_prefilling]
        if not prompts:
            return self._decode(decoding)
        prompts.sort(key=lambda s: (s.priority, s.prefilled_at))
        able = joining(prompts, self._runner) if decoding else []
        work = self._budget.next(
            len(decoding),
            num_joining=sum(number for _, number in able),
            num_pending=len(prompts[0].pending),
        )
        if work.how == "mixed":
            return self._decode(decoding, shares(able, work.num_tokens))
        self._decode(decoding)
        prompt, started = prompts[0], time.perf_counter()
        num_tokens = prompt.num_prefill_tokens(work.num_tokens)
        prompt.prefilled_at = self.num_steps
        self._prefill(prompt, num_tokens)
        self.num_prefilled_tokens += num_tokens
        return self._budget.prefilled(num_tokens, time.perf_counter() - started)

    def _fork_samples(self, stream: EngineStream) -> None:
        """Let the other samples of a prompt run, or wait with a copy of its cache."""
        state = None
        for sample in stream.take_unforked():
            stream.samples.append(sample)
            if not self.fork(stream, sample):
                if state is None and stream.num_seen_tokens:
                    assert stream.slot is not None
                    state = stream.slot.export_state()
                sample.cache_state = state
                self.waiting.append(sample)

    def _lend_slot(self, stream: EngineStream) -> None:
        """Let an ended stream wait, so that samples of its prompt that wait can have its slot."""
        if stream.slot is not None:
            stream.cache_state = stream.slot.export_state()
            stream.slot.close()
            stream.slot = None
            self.running.remove(stream)
            self.waiting.append(stream)

    def _decode(
        self,
        decoding: Sequence[EngineStream],
        prompts: Sequence[tuple[EngineStream, int]] = (),
    ) -> None:
        """Feed one token to each stream that decodes, and some to prompts in the same step."""
        if not decoding:
            return
        started, num_first_steps = time.perf_counter(), self._runner.num_first_steps
        together = [stream for stream in decoding if self._runner.can_step(stream)]
        alone = [stream for stream in decoding if stream not in together]
        num_mixed = sum(number for _, number in prompts)
        if together or prompts:
            logits = self._runner.step(together, prompts)
            self.num_prefilled_tokens += num_mixed
            for prompt, _ in prompts:
                prompt.prefilled_at = self.num_steps
            self._append_tokens([*together, *(prompt for prompt, _ in prompts)], logits)
        for stream in alone:
            self._prefill(stream, 1)
        if self._runner.num_first_steps == num_first_steps:
            self._budget.stepped(len(decoding), time.perf_counter() - started, num_mixed)

    def _prefill(self, stream: EngineStream, num_tokens: int) -> None:
        """Feed tokens to one stream in a pass of its own, which may fail."""
        try:
            logits = self._runner.prefill(stream, num_tokens)
        except Exception as error:
            self.end(stream, FinishReason.FAILED, error)
        else:
            self._append_tokens([stream], logits)

    def _append_tokens(self, streams: Sequence[EngineStream], logits: Tensor) -> None:
        """Choose a token for each stream that has no pending ones."""
        done = [(i, s, s.generation) for i, s in enumerate(streams) if not s.pending]
        ready = [(i, s, g) for i, s, g in done if g is not None]
        if not ready:
            return
        if len(ready) < len(streams):
            logits = logits[[i for i, _, _ in ready]]
        choosers = [generation.chooser for _, _, generation in ready]
        tokens = choose_tokens(choosers, logits, [s.token_tail for _, s, _ in ready])
        for (_, stream, generation), row, token in zip(ready, logits, tokens, strict=True):
            self._append(stream, generation, row, token)

    def _append(
        self,
        stream: EngineStream,
        generation: GenerationState,
        logits: Tensor,
        token: int | Exception,
    ) -> None:
        try:
            if isinstance(token, Exception):
                raise token
            logprobs: tuple[TokenLogprobs, ...] = ()
            if generation.params.logprobs is not None:
                logprobs = (token_logprobs(logits, token, generation.params.logprobs),)
            text, reason = generation.append(token)
        except Exception as error:
            return self.end(stream, FinishReason.FAILED, error)
        stream.pending.append(token)
        self.num_generated_tokens += 1
        return self._put(stream, (token,), text, reason, logprobs)
