"""Take back what was changed in a session for a turn that never began."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from streamingllm.sessions.session import Session, StreamPlace
from streamingllm.sessions.token_log import TokenLog
from streamingllm.sessions.transcript import Transcript

_FIELDS = (
    "system_prompt",
    "tools",
    "variables",
    "eviction",
    "num_pinned_tokens",
    "num_unfed",
    "num_stored_messages",
    "num_stored_tokens",
)


@dataclass(frozen=True)
class Checkpoint:
    """Hold a session as it was; both share the past.

    Args:
        transcript: of the session.
        token_log: of the session.
        fields: that a request may change.
        place: of the stream.
        num_agreeing: tokens of the stream that stood in the log.
    """

    transcript: Transcript
    token_log: TokenLog
    fields: dict[str, Any]
    place: StreamPlace
    num_agreeing: int

    @classmethod
    def of(cls, session: Session) -> Checkpoint:
        """Return a checkpoint of a session, whose lock is held."""
        return cls(
            session.transcript.fork(),
            session.token_log.fork(),
            {name: getattr(session, name) for name in _FIELDS},
            session.place,
            session.place.num_agreeing,
        )

    def restore(self, session: Session) -> None:
        """Let a session be as it was; its stream is rewound or replayed if it went on."""
        session.transcript, session.token_log = self.transcript, self.token_log
        for name, value in self.fields.items():
            setattr(session, name, value)
        place = session.place
        if place is self.place:
            place.num_agreeing = min(place.num_streamed, self.num_agreeing)
        else:  # the stream was dropped, or opened anew for the changed log
            place.num_agreeing = min(place.num_agreeing, self.fields["num_pinned_tokens"])
