"""Report of a turn, for whoever watches a server."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from streamingllm.sessions.transcript import Message
from streamingllm.sessions.turn import SampleEnded, TextDelta, TurnEnded, TurnEvent, TurnStarted


@dataclass(frozen=True)
class TurnReport:
    """Describe a turn that has ended.

    Args:
        owner: of the session.
        session_id: of the session; "" for a text without one.
        reason: why its first sample ended; "cancelled" if nobody waited for the end.
        first_text_seconds: from the request to the first text; None without text.
        seconds_per_token: of the tokens after the first text; None without any.
        num_generated_tokens: of all samples that ended.
        num_evicted_tokens: of the session, in this turn.
        messages: that were new.
        answers: of all samples that ended.
    """

    owner: str
    session_id: str
    reason: str
    first_text_seconds: float | None
    seconds_per_token: float | None
    num_generated_tokens: int
    num_evicted_tokens: int
    messages: tuple[Message, ...] = field(default=(), repr=False)
    answers: tuple[Message, ...] = field(default=(), repr=False)


class TurnWatch:
    """Watch a turn by its events.

    Args:
        owner: of the session.

    Attributes:
        has_started: whether the turn was accepted.
    """

    def __init__(self, owner: str) -> None:
        self.has_started = False
        self._messages: tuple[Message, ...] = ()
        self._owner = owner
        self._session_id = ""
        self._asked = time.perf_counter()
        self._first_text: float | None = None
        self._last_text = 0.0
        self._ended: list[SampleEnded] = []
        self._num_forgotten = 0
        self._num_evicted = 0

    def begin(self, messages: tuple[Message, ...], num_forgotten_tokens: int = 0) -> None:
        """Note what is new, and what the session had forgotten before it was fed."""
        self._messages, self._num_forgotten = messages, num_forgotten_tokens

    def note(self, event: TurnEvent) -> None:
        """Take an event into account."""
        if isinstance(event, TurnStarted):
            self.has_started = True
            self._session_id = event.view.session_id
        elif isinstance(event, TextDelta) and self._first_text is None:
            self._first_text = time.perf_counter()
        elif isinstance(event, SampleEnded):
            self._ended.append(event)
            if event.sample == 0:
                self._last_text = time.perf_counter()
        elif isinstance(event, TurnEnded):
            self._num_evicted = event.view.num_forgotten_tokens - self._num_forgotten

    def report(self) -> TurnReport:
        """Return what is known at the end."""
        first = next((ended for ended in self._ended if ended.sample == 0), None)
        waited, per_token = None, None
        if self._first_text is not None:
            waited = self._first_text - self._asked
            if first is not None and first.num_tokens > 1:
                per_token = (self._last_text - self._first_text) / (first.num_tokens - 1)
        return TurnReport(
            self._owner,
            self._session_id,
            "cancelled" if first is None else first.reason.value,
            waited,
            per_token,
            sum(ended.num_tokens for ended in self._ended),
            max(0, self._num_evicted),
            self._messages,
            tuple(ended.message for ended in self._ended),
        )
