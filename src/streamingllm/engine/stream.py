"""One stream of an engine, as the engine sees it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace

from streamingllm.cache.state import CacheState
from streamingllm.engine.outputs import State, StepOutput, Usage
from streamingllm.engine.slot_pool import Slot
from streamingllm.errors import RewindError
from streamingllm.finish_reason import FinishReason
from streamingllm.integration.lora import LoraAdapter
from streamingllm.stream.generation_state import GenerationState
from streamingllm.stream.next_token import TokenLogprobs


@dataclass(eq=False)
class EngineStream:
    """Hold one stream's slot, tokens and text.

    Args:
        id: the stream's id; samples of a prompt share the id of the stream that was submitted to.
        num_pinned_tokens: length of the pinned prefix.
        token_tail: last tokens that the model has seen.
        pending: tokens that the model has not seen: the rest of a prompt, and at the end of a text
            the token generated last.
        priority: streams of a lower number are admitted and prefilled first.
        sample_index: number of the sample.
        adapter: that it computes with; None for the model's own weights.

    Attributes:
        slot: None while the stream waits and after it finished.
        cache_state: cache to import into the slot on admission.
        generation: the text that is being generated, or that ended last.
        samples: other samples of this stream's prompt that have not ended.
        unforked: their states while the prompt they share is not prefilled.
        is_paused: whether steps leave the stream out.
        is_closed: whether it finished for ever.
        finish_reason: why its last text ended; None while it goes on.
        deadline: time of the engine's clock at which the text ends.
        num_seen_tokens: tokens that the model has seen.
        num_prompt_tokens: tokens of the last request.
        prefilled_at: the step that prefilled a part of its prompt last.
        turn_starts: stream positions of marked turns that the model has not reached.
    """

    id: str
    num_pinned_tokens: int
    token_tail: deque[int]
    pending: deque[int] = field(default_factory=deque)
    priority: int = 0
    sample_index: int = 0
    adapter: LoraAdapter | None = None
    slot: Slot | None = None
    cache_state: CacheState | None = None
    generation: GenerationState | None = None
    samples: list[EngineStream] = field(default_factory=list)
    unforked: list[GenerationState] = field(default_factory=list)
    is_paused: bool = False
    is_closed: bool = False
    finish_reason: FinishReason | None = None
    deadline: float | None = None
    num_seen_tokens: int = 0
    num_prompt_tokens: int = 0
    prefilled_at: int = -1
    turn_starts: deque[int] = field(default_factory=deque)

    @property
    def is_generating(self) -> bool:
        """Return whether a text was submitted and has not ended."""
        return self.generation is not None and self.finish_reason is None and not self.is_closed

    @property
    def is_active(self) -> bool:
        """Return whether a step does something for it."""
        return self.slot is not None and self.is_generating and not self.is_paused

    @property
    def is_prefilling(self) -> bool:
        """Return whether more than one token is pending."""
        return len(self.pending) > 1

    @property
    def state(self) -> State:
        """The stream's state."""
        if self.is_closed:
            return "finished"
        if self.is_generating and self.is_paused:
            return "paused"
        if self.slot is None:
            return "waiting"
        if not self.is_generating:
            return "idle"
        return "prefilling" if self.is_prefilling else "decoding"

    @property
    def usage(self) -> Usage:
        """Counts of the last request and of the stream."""
        cached = 0 if self.slot is None else self.slot.num_cached_tokens
        return Usage(
            num_prompt_tokens=self.num_prompt_tokens,
            num_generated_tokens=0
            if self.generation is None
            else self.generation.num_generated_tokens,
            num_cached_tokens=cached,
            num_evicted_tokens=self.num_seen_tokens - cached if self.slot is not None else 0,
        )

    def output(
        self,
        token_ids: tuple[int, ...] = (),
        text: str = "",
        finish_reason: FinishReason | None = None,
        logprobs: tuple[TokenLogprobs, ...] = (),
        error: Exception | None = None,
    ) -> StepOutput:
        """Return a step output of this stream."""
        return StepOutput(
            self.id,
            token_ids,
            text,
            finish_reason,
            self.usage,
            logprobs,
            self.sample_index,
            None if self.generation is None else self.generation.stop_string,
            error,
        )

    def num_prefill_tokens(self, budget: int) -> int:
        """Return how many pending tokens the next pass may feed.

        A stream that generates no token keeps its last one pending to continue from. One with more
        samples keeps it so that each sample gets logits of its own. A pass ends where a turn
        starts.
        """
        assert self.generation is not None
        keeps_last = self.generation.is_full or bool(self.unforked)
        most = min(budget, len(self.pending) - keeps_last)
        if self.turn_starts:
            most = min(most, self.turn_starts[0] - self.num_seen_tokens)
        return most

    def begin_turns(self) -> None:
        """Tell the cache of a turn that starts with the next token."""
        while self.turn_starts and self.turn_starts[0] == self.num_seen_tokens:
            assert self.slot is not None
            self.slot.cache.begin_turn()
            self.turn_starts.popleft()

    def take_pending(self, num_tokens: int) -> None:
        """Count tokens that the model has now seen."""
        for _ in range(num_tokens):
            self.token_tail.append(self.pending.popleft())
        self.num_seen_tokens += num_tokens

    def rewind(self, num_tokens: int) -> None:
        """Take back the last tokens; the stream continues from the one before.

        Raises:
            RewindError: there are fewer, or the rewind buffer holds fewer.
        """
        if num_tokens < 0:
            raise RewindError(f"num_tokens={num_tokens} is negative; choose a number >= 0")
        assert self.slot is not None
        num_pending, seen = len(self.pending), self.num_seen_tokens
        most = num_pending + self.slot.max_rewind_now
        if num_tokens > most:
            raise RewindError(
                f"num_tokens={num_tokens} is more than this stream can take back now; choose at "
                f"most {most} or raise max_rewind_tokens"
            )
        # Continuing needs a token to feed, so the one that stays last is taken back as well.
        if num_tokens >= num_pending and seen:
            num_unseen = min(seen, num_tokens - num_pending + 1)
            # First, because a refusal leaves the pending tokens as they are.
            taken = self._unsee(num_unseen, feed_again=seen > num_tokens - num_pending)
        else:
            taken = []
        for _ in range(min(num_tokens, num_pending)):
            self.pending.pop()
        self.pending.extend(taken)
        end = self.num_seen_tokens + len(self.pending)
        while self.turn_starts and self.turn_starts[-1] > end:
            self.turn_starts.pop()

    def _unsee(self, num_tokens: int, *, feed_again: bool) -> list[int]:
        """Take tokens off the cache; return the first of them if it is to be fed again."""
        assert self.slot is not None
        self.slot.cache.rewind(num_tokens, fed_again=int(feed_again))
        self.num_seen_tokens -= num_tokens
        taken = [self.token_tail.pop() for _ in range(num_tokens)]
        return taken[-1:] if feed_again else []

    def take_unforked(self) -> list[EngineStream]:
        """Return the other samples of the prompt, which have no slot yet."""
        unforked, self.unforked = self.unforked, []
        samples = [self.copy(self.id, generation) for generation in unforked]
        for index, sample in enumerate(samples, start=1):
            sample.sample_index = index
        return samples

    def copy(self, stream_id: str, generation: GenerationState | None) -> EngineStream:
        """Return a stream without a slot that stands where this one does.

        Args:
            stream_id: id of the copy.
            generation: its own state of the text.
        """
        return replace(
            self,
            id=stream_id,
            generation=generation,
            token_tail=self.token_tail.copy(),
            pending=self.pending.copy(),
            turn_starts=self.turn_starts.copy(),
            samples=[],
            unforked=[],
            slot=None,
            cache_state=None,
        )
