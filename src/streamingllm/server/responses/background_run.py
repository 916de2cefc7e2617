"""Follow a response that runs in the background."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from streamingllm.server.responses.builder import Event, ResponseBuilder
from streamingllm.sessions.turn import TurnRequest


@dataclass
class BackgroundRun:
    """Follow a response that nobody has to wait for.

    Args:
        builder: of the response.
        request: its turn.
        task: which runs it.
        events: so far.
        changed: set and replaced with each event.
        accepted: set once the turn runs, or is refused.
        refusal: why it never ran.
        num_stored: first events that the store has as well.
        is_ended: whether no event follows.
    """

    builder: ResponseBuilder
    request: TurnRequest
    task: asyncio.Task[None] | None = None
    events: list[Event] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    accepted: asyncio.Event = field(default_factory=asyncio.Event)
    refusal: Exception | None = None
    num_stored: int = 0
    is_ended: bool = False

    def put(self, event: Event) -> None:
        """Add an event and wake who listens."""
        self.events.append(event)
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()

    def end(self) -> None:
        """Wake who listens for the last time."""
        self.is_ended = True
        self.accepted.set()
        self.changed.set()
