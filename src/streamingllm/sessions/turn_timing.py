"""Durations of a turn, for whoever watches a server."""

from __future__ import annotations

import time
from dataclasses import dataclass

from streamingllm.sessions.turn import SampleEnded, TextDelta, TurnEnded, TurnEvent


@dataclass(frozen=True)
class TurnTiming:
    """Describe a turn that has ended.

    Args:
        reason: why its first sample ended; "cancelled" if nobody waited for the end.
        first_text_seconds: from the request to the first text; None without text.
        seconds_per_token: of the tokens after the first text; None without any.
        num_evicted_tokens: of the session, in this turn.
    """

    reason: str
    first_text_seconds: float | None
    seconds_per_token: float | None
    num_evicted_tokens: int


class TurnClock:
    """Measure a turn by its events."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._first_text: float | None = None
        self._reason = "cancelled"
        self._num_tokens = 0
        self._num_forgotten = 0
        self._num_evicted = 0

    def begin(self, num_forgotten_tokens: int) -> None:
        """Note what the session had forgotten before the prompt was fed."""
        self._num_forgotten = num_forgotten_tokens

    def note(self, event: TurnEvent) -> None:
        """Take an event into account."""
        if isinstance(event, TextDelta) and self._first_text is None:
            self._first_text = time.perf_counter()
        elif isinstance(event, SampleEnded) and event.sample == 0:
            self._reason, self._num_tokens = event.reason.value, event.num_tokens
        elif isinstance(event, TurnEnded):
            self._num_evicted = event.view.num_forgotten_tokens - self._num_forgotten

    def timing(self) -> TurnTiming:
        """Return the durations at the end."""
        first, per_token = None, None
        if self._first_text is not None:
            first = self._first_text - self._started
            if self._num_tokens > 1:
                per_token = (time.perf_counter() - self._first_text) / (self._num_tokens - 1)
        return TurnTiming(self._reason, first, per_token, max(0, self._num_evicted))
