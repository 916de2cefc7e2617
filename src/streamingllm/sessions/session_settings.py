"""Settings of a session manager: limits, tiers, and what the operator decides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from streamingllm.checks import check_integer
from streamingllm.errors import ConfigError

_COUNTS = (
    *("host_bytes", "disk_bytes", "max_waiting", "replay_tokens", "max_responses"),
    "recall_rewind_tokens",
)
_SECONDS = (
    "snapshot_after_seconds",
    "session_ttl_seconds",
    "reminder_seconds",
    "turn_seconds",
    "response_ttl_seconds",
)


@dataclass(frozen=True)
class SessionSettings:
    """Decide how sessions are kept.

    Args:
        eviction: of sessions that do not choose: "token", or whole turns ("turn").
        system_prompt: of sessions that bring none; pinned.
        host_bytes: bound on the states of idle sessions in memory.
        disk_bytes: bound on the snapshots on disk.
        max_waiting: turns that may wait for a slot.
        max_message_characters: of one message.
        turn_seconds: an answer ends after so long; None for never.
        snapshot_after_seconds: a session idle for so long gets a snapshot.
        restore: "exact" replays every token since the last snapshot; "tail" replays the pinned
            prefix and the last `replay_tokens`, which loses what older tokens left in the keys.
        replay_tokens: of "tail"; 0 for four times the window.
        on_disconnect: "keep" the partial answer when a client goes away, or "rollback" to the last
            complete turn.
        session_ttl_seconds: a session unchanged for so long is deleted; None for never.
        response_ttl_seconds: a stored response is deleted after so long.
        max_responses: that are stored; the oldest go first.
        disclosure: text that goes with the first answer of a session; "" for none.
        reminder: text that is repeated; "" for none.
        reminder_seconds: between two reminders.
        recall_share: of the cache, which recalled texts and their marks take at most.
        recall_rewind_tokens: longest turn that is fed again without its recalled texts after its
            answer; those of a longer one roll out. At most what the engine rewinds.
        has_memory_tool: whether models may search the memory by a tool.

    Raises:
        ConfigError: a value is out of range.
    """

    eviction: Literal["token", "turn"] = "token"
    system_prompt: str = ""
    host_bytes: int = 1 << 30
    disk_bytes: int = 8 << 30
    max_waiting: int = 256
    max_message_characters: int = 4_000_000
    turn_seconds: float | None = None
    snapshot_after_seconds: float = 10.0
    restore: Literal["exact", "tail"] = "exact"
    replay_tokens: int = 0
    on_disconnect: Literal["keep", "rollback"] = "keep"
    session_ttl_seconds: float | None = None
    response_ttl_seconds: float = 30 * 86400.0
    max_responses: int = 100_000
    disclosure: str = ""
    reminder: str = ""
    reminder_seconds: float = 3 * 3600.0
    recall_share: float = 0.2
    recall_rewind_tokens: int = 0
    has_memory_tool: bool = False

    def __post_init__(self) -> None:
        for name in _COUNTS:
            check_integer(name, getattr(self, name), 0)
        if not 0 <= self.recall_share <= 1:
            raise ConfigError(f"recall_share={self.recall_share!r} is no share; choose 0 to 1")
        choices = {
            "eviction": ("token", "turn"),
            "restore": ("exact", "tail"),
            "on_disconnect": ("keep", "rollback"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                value = getattr(self, name)
                raise ConfigError(f"{name}={value!r} is unknown; choose {' or '.join(allowed)}")
        for name in _SECONDS:
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"{name}={value!r} is no number of seconds > 0; choose a greater")
