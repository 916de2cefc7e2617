"""Work of a day: users, sessions and turns."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from streamingllm.errors import ConfigError

SECONDS_A_DAY = 86_400


@dataclass(frozen=True)
class Workload:
    """Describe the work of a day and its busiest hour.

    Args:
        users: people or programs.
        sessions_per_user: that each of them keeps.
        turns_a_day: of a user, over all sessions.
        prompt_tokens: new ones of a turn.
        answer_tokens: generated in a turn.
        history_tokens: of a session before a turn, on average.
        peak_factor: turns of the busiest hour over those of an average one.

    Raises:
        ConfigError: a figure is not positive, or infinite.
    """

    users: float
    sessions_per_user: float = 1.0
    turns_a_day: float = 20.0
    prompt_tokens: float = 60.0
    answer_tokens: float = 200.0
    history_tokens: float = 20_000.0
    peak_factor: float = 3.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{field.name}={value} is not positive; give a number above 0")

    @property
    def sessions(self) -> float:
        """Return the sessions of all users."""
        return self.users * self.sessions_per_user

    @property
    def turns_per_second(self) -> float:
        """Return the turns of a second in the busiest hour."""
        return self.users * self.turns_a_day * self.peak_factor / SECONDS_A_DAY

    @property
    def tokens_a_day(self) -> float:
        """Return new tokens of a day, read and generated."""
        return self.users * self.turns_a_day * (self.prompt_tokens + self.answer_tokens)
