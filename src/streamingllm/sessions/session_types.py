"""Describe sessions to those who manage them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from streamingllm.engine import EngineStats
from streamingllm.sessions.facts import Fact
from streamingllm.sessions.session import Tier
from streamingllm.sessions.transcript import Message
from streamingllm.sessions.turn import SessionView
from streamingllm.stream.sampling import SamplingParams


@dataclass(frozen=True)
class TextRequest:
    """Describe a text to go on from, without a chat template and without a session.

    Args:
        owner: who asks.
        prompt: text or token ids.
        params: sampling parameters.
        truncation: "auto" evicts; "disabled" refuses what does not fit.
        deadline: seconds from now after which the text ends.
    """

    owner: str
    prompt: str | Sequence[int]
    params: SamplingParams
    truncation: str = "auto"
    deadline: float | None = None


@dataclass(frozen=True)
class SessionInfo:
    """Describe a session in a list.

    Args:
        id: of the session, among those of its owner.
        created_seconds: since 1970.
        updated_seconds: since 1970.
        num_messages: of its transcript.
        num_tokens: seen.
        metadata: of its makers.
        parent_id: session that it is a branch of.
        num_shared_messages: messages that it shares with that.
    """

    id: str
    created_seconds: float
    updated_seconds: float
    num_messages: int
    num_tokens: int
    metadata: Mapping[str, Any]
    parent_id: str | None = None
    num_shared_messages: int = 0


@dataclass(frozen=True)
class SessionDetail:
    """Describe one session.

    Args:
        info: as in a list.
        view: what the model sees.
        messages: all, the system prompt first.
        system_prompt: pinned.
        facts: pinned after it.
        tools: pinned.
        eviction: by token or by turn.
        tier: where its stream is.
        is_running: whether it generates now.
        branches: sessions that share its first messages, by the same family.
    """

    info: SessionInfo
    view: SessionView
    messages: tuple[Message, ...]
    system_prompt: str
    facts: tuple[Fact, ...]
    tools: tuple[Mapping[str, Any], ...]
    eviction: Literal["token", "turn"]
    tier: Tier
    is_running: bool
    branches: tuple[SessionInfo, ...] = ()


@dataclass(frozen=True)
class SessionPage:
    """Hold a part of a list of sessions.

    Args:
        sessions: that changed last first.
        next: pass it as `after` for the next page; None if this is the last.
    """

    sessions: tuple[SessionInfo, ...]
    next: str | None = None

    @property
    def has_more(self) -> bool:
        """Return whether there are more pages."""
        return self.next is not None


@dataclass(frozen=True)
class ManagerStats:
    """Count sessions, bytes and moves.

    Args:
        engine: counts of the engine.
        num_sessions: by tier; "tail" counts those of the store without a snapshot.
        num_bytes: by tier.
        moves: between tiers, by "from->to".
        num_waiting: turns that wait for a slot.
        num_running: turns that run.
        num_evicted_tokens: evicted by turns so far.
        num_restores_failed: snapshots that could not be restored.
    """

    engine: EngineStats
    num_sessions: Mapping[str, int]
    num_bytes: Mapping[str, int]
    moves: Mapping[str, int]
    num_waiting: int
    num_running: int
