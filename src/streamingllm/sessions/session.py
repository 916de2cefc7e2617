"""A session in memory: what was said, what was fed, and where its stream is."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from streamingllm.engine.stream_state import StreamState
from streamingllm.sessions.facts import Fact, prompt_with_facts
from streamingllm.sessions.history_digest import history_digests
from streamingllm.sessions.session_lock import SessionLock
from streamingllm.sessions.token_log import TokenLog
from streamingllm.sessions.transcript import Message, Transcript
from streamingllm.sessions.turn import SessionView

_END = 1 << 62
Tier = Literal["device", "host", "disk", "tail"]


@dataclass
class StreamPlace:
    """Say where the stream of a session is, and how much of the token log it holds.

    Args:
        stream_id: of the engine, while the session is on the device.
        state: while it is on the host.
        num_streamed: tokens of the log that the stream was fed.
        num_agreeing: those of them that still stand in the log; the others are to be taken back.
        num_skipped: tokens after the pinned prefix that a replay left out.
        num_evicted: tokens of the stream that are evicted.
    """

    stream_id: str | None = None
    state: StreamState | None = None
    num_streamed: int = 0
    num_agreeing: int = 0
    num_skipped: int = 0
    num_evicted: int = 0

    def agree_up_to(self, num_tokens: int) -> None:
        """Note that the log keeps its first tokens only."""
        self.num_agreeing = min(self.num_agreeing, num_tokens)

    def extend(self, num_tokens: int) -> None:
        """Note that the stream was fed tokens that the log has as well."""
        self.num_streamed += num_tokens
        self.num_agreeing = self.num_streamed


@dataclass(eq=False)
class Session:
    """Hold a session that is in use or was lately.

    Args:
        id: of the session, among those of its owner.
        owner: whose it is.
        epoch: of the store; None if it is not stored.
        group: id of the chat that it is a branch of.
        system_prompt: pinned.
        facts: pinned after the system prompt.
        tools: JSON schemas of functions, pinned.
        variables: further variables of the chat template.
        eviction: by token or by turn.
        num_pinned_tokens: length of the pinned prefix.
        num_unfed: last messages that no token stands for yet.
        is_feeding: whether the last message is a feed that goes on.
        cache_size: tokens that its stream can see.
        transcript: what was said.
        token_log: what was fed.
        place: of the stream.
        lock: held by a turn, and by whatever changes the session.
        used_seconds: when it was used last, by a monotonic clock.
        reminded_seconds: when the reminder was shown last, since 1970.
        num_stored_messages: first messages that the store has as well.
        num_stored_tokens: first token ids that the store has as well.
        is_running: whether it generates now.
        is_deleted: whether it was deleted while others waited for it.
        memory_key: of the session that this one recalls from; "" for itself.
        num_told_tokens: up to which the model was told of results that left the window.
    """

    id: str
    owner: str
    epoch: int | None = None
    group: str = ""
    system_prompt: str = ""
    facts: tuple[Fact, ...] = ()
    tools: tuple[Mapping[str, Any], ...] = ()
    variables: Mapping[str, Any] = field(default_factory=dict)
    eviction: Literal["token", "turn"] = "token"
    num_pinned_tokens: int = 0
    num_unfed: int = 0
    is_feeding: bool = False
    cache_size: int = 0
    transcript: Transcript = field(default_factory=Transcript)
    token_log: TokenLog = field(default_factory=TokenLog)
    place: StreamPlace = field(default_factory=StreamPlace)
    metadata: dict[str, Any] = field(default_factory=dict)
    lock: SessionLock = field(default_factory=SessionLock)
    used_seconds: float = field(default_factory=time.monotonic)
    reminded_seconds: float = 0.0
    num_stored_messages: int = 0
    num_stored_tokens: int = 0
    is_running: bool = False
    is_deleted: bool = False
    memory_key: str = ""
    num_told_tokens: int = 0

    @property
    def key(self) -> str:
        """Id of the session among those of all owners."""
        return session_key(self.owner, self.id)

    @property
    def pinned_prompt(self) -> str:
        """The system prompt and the facts, as the model reads them."""
        return prompt_with_facts(self.system_prompt, self.facts)

    @property
    def is_stored(self) -> bool:
        """Return whether the store has it."""
        return self.epoch is not None

    @property
    def num_forgotten_tokens(self) -> int:
        """Tokens that the stream no longer sees, or was not fed when it was replayed.

        The token generated last counts as visible, although it is fed with the next turn only.
        """
        num_seen = len(self.token_log)
        num_gone = max(self.place.num_evicted + self.place.num_skipped, num_seen - self.cache_size)
        return min(num_gone, max(0, num_seen - self.num_pinned_tokens))

    @property
    def visible_positions(self) -> range:
        """Stream positions of messages that the model sees in full."""
        first = self.num_pinned_tokens + self.num_forgotten_tokens
        return range(first if self.num_forgotten_tokens else 0, _END)

    def settings(self) -> dict[str, Any]:
        """Return what the store keeps apart from messages and ids, JSON-able."""
        return {
            "system_prompt": self.system_prompt,
            "facts": [asdict(fact) for fact in self.facts],
            "tools": list(self.tools),
            "variables": dict(self.variables),
            "eviction": self.eviction,
            "num_unfed": self.num_unfed,
            "is_feeding": self.is_feeding,
            "num_forgotten": self.num_forgotten_tokens,
            "reminded": self.reminded_seconds,
        }

    def leave_stream(self) -> StreamPlace:
        """Let the log alone stand for the stream; return where the stream was."""
        place = self.place
        self.place = StreamPlace(num_evicted=self.num_forgotten_tokens)
        return place

    def truncate(self, num_messages: int) -> None:
        """Keep the first messages and their tokens, and at least the pinned prefix."""
        unfed_from = len(self.transcript) - self.num_unfed
        self.num_unfed = max(0, num_messages - unfed_from)
        stop = self.transcript[num_messages - 1].stop if num_messages else 0
        self.transcript.truncate(num_messages)
        self.truncate_tokens(max(stop, self.num_pinned_tokens))
        self.num_stored_messages = min(self.num_stored_messages, num_messages)

    def append_unfed(self, messages: Iterable[Message]) -> None:
        """Append messages that are fed with the next turn."""
        at = len(self.token_log)
        for message in messages:
            self.transcript.append(replace(message, first=at, stop=at, begins_turn=False))
            self.num_unfed += 1

    def truncate_tokens(self, num_tokens: int) -> None:
        """Keep the first token ids."""
        self.token_log.truncate(num_tokens)
        self.num_stored_tokens = min(self.num_stored_tokens, num_tokens)
        self.place.agree_up_to(num_tokens)

    def history_digests(self) -> list[bytes]:
        """Return the digest of each beginning of the history, without the system prompt."""
        messages = list(self.transcript)
        has_system = bool(messages) and messages[0].role == "system"
        return history_digests(messages[1:] if has_system else messages)

    def last_fed_message(self) -> Message | None:
        """Return the last message that tokens stand for."""
        number = len(self.transcript) - self.num_unfed - 1
        return self.transcript[number] if number >= 0 else None

    def view(self, notices: tuple[str, ...] = ()) -> SessionView:
        """Count what the model sees."""
        return view_of(
            self.id,
            self.transcript,
            num_seen_tokens=len(self.token_log),
            num_pinned_tokens=self.num_pinned_tokens,
            num_forgotten_tokens=self.num_forgotten_tokens,
            notices=notices,
        )


def session_key(owner: str, session_id: str) -> str:
    """Return the id of a session among those of all owners."""
    return f"{owner or '-'}/{session_id}"


def view_of(
    session_id: str,
    transcript: Transcript,
    *,
    num_seen_tokens: int,
    num_pinned_tokens: int,
    num_forgotten_tokens: int,
    notices: tuple[str, ...] = (),
) -> SessionView:
    """Find the first message that is visible in full, and count the rest.

    Forgotten tokens follow the pinned prefix.
    """
    number: int | None = 0 if len(transcript) else None
    if num_forgotten_tokens:
        number = transcript.first_message_from(num_pinned_tokens + num_forgotten_tokens)
    return SessionView(
        session_id=session_id,
        num_seen_tokens=num_seen_tokens,
        num_visible_tokens=num_seen_tokens - num_forgotten_tokens,
        num_pinned_tokens=num_pinned_tokens,
        first_visible_message=number,
        first_visible_message_id=None if number is None else transcript[number].id,
        num_messages=len(transcript),
        notices=notices,
    )
