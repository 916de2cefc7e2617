"""Keep the requests of a session within the context limit of the server that answers them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from streamingllm.checks import check_integer
from streamingllm.errors import ConfigError, InputError
from streamingllm.gateway.chat_body import text_of
from streamingllm.gateway.token_count import estimated_tokens, message_tokens
from streamingllm.gateway.turn_memory import Turn

Json = dict[str, Any]
_HEAD_ROLES = ("system", "developer")


@dataclass(frozen=True)
class RolloverSettings:
    """Say when messages are left out, and how many stay.

    Args:
        limit: tokens of the server's context, answer included.
        keep_share: of the limit, what a rollover leaves, the pinned head included.
        warm_share: of the limit; a request that takes more of it, with the room for the answer and
            the memory, is followed by one that warms the server's prefix cache for the next
            rollover.
        answer_tokens: room for an answer whose request does not bound it.
        recall_tokens: room for what the memory adds.

    Raises:
        ConfigError: a value is out of range, or they leave no room.
    """

    limit: int
    keep_share: float = 0.5
    warm_share: float = 0.8
    answer_tokens: int = 256
    recall_tokens: int = 0

    def __post_init__(self) -> None:
        for name, lowest in (("limit", 64), ("answer_tokens", 1), ("recall_tokens", 0)):
            check_integer(name, getattr(self, name), lowest)
        if not 0 < self.keep_share < 1 or not self.keep_share < self.warm_share <= 1:
            raise ConfigError(
                f"keep_share={self.keep_share}, warm_share={self.warm_share}; choose "
                "0 < keep_share < warm_share <= 1"
            )
        if self.answer_tokens + self.recall_tokens >= self.limit * (1 - self.keep_share):
            raise ConfigError(
                f"answer_tokens={self.answer_tokens} and recall_tokens={self.recall_tokens} leave "
                f"no room above keep_share={self.keep_share} of limit={self.limit}; lower them"
            )


@dataclass(frozen=True)
class Visible:
    """Tell which messages of a request are sent.

    Args:
        messages: those that are sent, the pinned head first.
        first: number, in the request, of the first message after the head that is sent.
        seen_tokens: of all messages of the request, by the estimate.
        visible_tokens: of those that are sent.
        is_rolled: whether messages are left out that the request before still sent.
        is_long: whether the next rollover is near.
    """

    messages: list[Json]
    first: int
    seen_tokens: int
    visible_tokens: int
    is_rolled: bool
    is_long: bool

    @property
    def facts(self) -> Json:
        """Fields of an answer that say what its request saw."""
        return {
            "seen_tokens": self.seen_tokens,
            "visible_tokens": self.visible_tokens,
            "forgotten_tokens": self.seen_tokens - self.visible_tokens,
            "first_visible_message": self.first,
        }


class Rollover:
    """Leave out the oldest messages of a request that would not fit.

    The head stays. When a request at a user's turn would pass the limit, messages up to a user's
    turn are left out, so that half of the limit is filled. Until then the same messages are sent
    again and again, and the server's prefix cache can serve them. The choice follows from the
    messages alone: a restart, a fork or an edited history needs no state.

    Args:
        settings: the limit and what goes with it.
        count_tokens: of a text; an estimate by default.
    """

    def __init__(
        self, settings: RolloverSettings, count_tokens: Callable[[str], int] = estimated_tokens
    ) -> None:
        self.settings = settings
        self._count = count_tokens

    def visible(self, body: Mapping[str, Any], *, share: float = 1.0) -> Visible:
        """Return what of a request is sent.

        Args:
            body: of a chat completion; its messages have been checked.
            share: of the limit that is used, for a server that found a request too long.

        Raises:
            InputError: the last turn alone does not fit.
        """
        messages: list[Json] = list(body["messages"])
        costs = [self._cost(message) for message in messages]
        num_head, sums = _num_head(messages), [0, *accumulate(costs)]
        fixed = sums[num_head] + self._count_of_tools(body)
        limit = int(self.settings.limit * share)
        room = limit - self._answer_room(body) - self.settings.recall_tokens - fixed
        keep = int(limit * self.settings.keep_share) - fixed
        turns = [n for n in range(num_head, len(messages)) if messages[n].get("role") == "user"]
        firsts = _firsts(sums, turns, num_head, room, keep)
        first = firsts[-1]
        size = sums[-1] - sums[first]
        if size > room:
            raise InputError(
                f"messages: the last turn takes about {size} tokens, and a context limit of "
                f"{self.settings.limit} leaves {max(0, room)} of them; send less"
            )
        return Visible(
            messages=messages[:num_head] + messages[first:],
            first=first,
            seen_tokens=sums[-1],
            visible_tokens=sums[num_head] + size,
            is_rolled=len(firsts) > 1 and firsts[-2] != first,
            is_long=limit - room + size > self.settings.warm_share * limit,
        )

    def fitting(self, turn: Turn) -> Turn:
        """Return a turn whose recalled text fits into the room for it."""
        return turn.within(self.settings.recall_tokens, self._count)

    def after_next_rollover(self, body: Mapping[str, Any], answer: str) -> list[Json]:
        """Return the messages that stay if the user's next turn causes a rollover."""
        messages = [*body["messages"], {"role": "assistant", "content": answer}]
        num_head = _num_head(messages)
        sums = [0, *accumulate(self._cost(message) for message in messages)]
        fixed = sums[num_head] + self._count_of_tools(body)
        keep = int(self.settings.limit * self.settings.keep_share) - fixed
        turns = [n for n in range(num_head, len(messages)) if messages[n].get("role") == "user"]
        first = _rolled(sums, turns, len(messages), keep)
        return messages[:num_head] + messages[first:]

    def _cost(self, message: Mapping[str, Any]) -> int:
        return message_tokens(self._count, text_of(message))

    def _count_of_tools(self, body: Mapping[str, Any]) -> int:
        return self._count(str(body["tools"])) if body.get("tools") else 0

    def _answer_room(self, body: Mapping[str, Any]) -> int:
        asked = body.get("max_completion_tokens") or body.get("max_tokens")
        return asked if isinstance(asked, int) else self.settings.answer_tokens


def _num_head(messages: Sequence[Mapping[str, Any]]) -> int:
    """Return how many messages of the pinned head come first."""
    rest = (n for n, one in enumerate(messages) if one.get("role") not in _HEAD_ROLES)
    return next(rest, len(messages))


def _firsts(
    sums: Sequence[int], turns: Sequence[int], num_head: int, room: int, keep: int
) -> list[int]:
    """Return, for each user's turn so far, the first message after the head that was sent.

    Args:
        sums: tokens before each message, and of all.
        turns: numbers of the messages that begin a user's turn.
        num_head: messages of the head.
        room: tokens that the messages after the head may take.
        keep: tokens of them that a rollover leaves.
    """
    first, found = num_head, [num_head]
    for index, turn in enumerate(turns):
        end = len(sums) - 1 if index + 1 == len(turns) else turn + 1
        if sums[end] - sums[first] > room:
            first = max(first, _rolled(sums, turns, turn, keep))
        if sums[end] - sums[first] > room:
            first = turn
        found.append(first)
    return found


def _rolled(sums: Sequence[int], turns: Sequence[int], end: int, keep: int) -> int:
    """Return the first of `turns` from which on the messages before `end` take at most `keep`."""
    index = bisect_left(turns, sums[end] - keep, key=lambda turn: sums[turn])
    return min(turns[index], end) if index < len(turns) else end
