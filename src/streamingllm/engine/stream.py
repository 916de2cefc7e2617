"""One stream of an engine."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Literal

from streamingllm.engine.generation_state import GenerationState
from streamingllm.engine.params import FinishReason
from streamingllm.engine.slot_pool import Slot
from streamingllm.errors import RewindError

State = Literal["waiting", "reading", "writing", "paused", "idle", "finished"]


@dataclass(eq=False)
class EngineStream:
    """A stream that an engine holds; callers read it, and change it through the engine only.

    Args:
        writer: chooses its tokens.
        pending: tokens that the model has not seen yet: what is left of a prompt, and at its end,
            later alone, the token written last.
        keep: whether the stream stays, idle, when its text has ended.
        recent_ids: the last tokens that the model has seen.

    Attributes:
        number: counts the streams of an engine.
        slot: its place in the pool; None while it waits and when it has finished.
        is_paused: whether it rests though there is something to do.
        finish_reason: why its text has ended; None while it has not.
        error: why it failed, if it has.
        num_seen_tokens: tokens that the model has seen.
        read_at: the step that read a part of its prompt last.
    """

    writer: GenerationState
    pending: deque[int]
    retain: bool
    recent_ids: deque[int]
    number: int = 0
    slot: Slot | None = None
    is_paused: bool = False
    finish_reason: FinishReason | None = None
    error: Exception | None = field(default=None, repr=False)
    num_seen_tokens: int = 0
    read_at: int = -1

    @property
    def state(self) -> State:
        """What the stream does."""
        if self.finish_reason is not None:
            return "finished" if self.slot is None else "idle"
        if self.is_paused:
            return "paused"
        if self.slot is None:
            return "waiting"
        return "reading" if self.is_reading else "writing"

    @property
    def is_active(self) -> bool:
        """Whether a step does something for it."""
        return self.slot is not None and self.finish_reason is None and not self.is_paused

    @property
    def is_reading(self) -> bool:
        """Whether more than one token is pending, so that it can be read in chunks."""
        return len(self.pending) > 1

    @property
    def num_written_tokens(self) -> int:
        """Tokens written since the stream was submitted or fed last."""
        return self.writer.num_written_tokens

    def take_pending(self, num_tokens: int) -> None:
        """Count tokens that the model has now seen."""
        for _ in range(num_tokens):
            self.recent_ids.append(self.pending.popleft())
        self.num_seen_tokens += num_tokens

    def rewind(self, num_tokens: int) -> None:
        """Take back the last tokens, read or written; the stream goes on from the one before.

        Raises:
            RewindError: there are not so many, or the cache does not go back so far.
        """
        if num_tokens < 0:
            raise RewindError(f"num_tokens={num_tokens}: must be a whole number >= 0")
        assert self.slot is not None
        num_pending, seen = len(self.pending), self.num_seen_tokens
        most = num_pending + self.slot.cache.max_rewind_now[0]
        if num_tokens > most:
            raise RewindError(
                f"num_tokens={num_tokens}: this stream goes back at most {most} tokens now"
            )
        for _ in range(min(num_tokens, num_pending)):
            self.pending.pop()
        if not self.pending and seen:
            self._unsee(min(seen, num_tokens - num_pending + 1), seen > num_tokens - num_pending)

    def _unsee(self, num_tokens: int, read_last_again: bool) -> None:
        """Take tokens off the cache; the first of them may be read again."""
        assert self.slot is not None
        self.slot.cache.rewind(num_tokens, fed_again=int(read_last_again))
        self.num_seen_tokens -= num_tokens
        taken = [self.recent_ids.pop() for _ in range(num_tokens)]
        if read_last_again:
            self.pending.append(taken[-1])
