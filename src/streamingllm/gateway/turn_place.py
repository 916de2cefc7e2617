"""Find the session that a request goes on with, and what is new to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from streamingllm.gateway.seen_messages import Told
from streamingllm.gateway.session_log import SessionLog
from streamingllm.sessions.history_digest import history_digests
from streamingllm.sessions.session import session_key
from streamingllm.sessions.store import SessionSummary
from streamingllm.sessions.transcript import Message

_ANSWER = "assistant"


@dataclass(frozen=True)
class Place:
    """Say where a turn goes on.

    Args:
        session_id: that the turn is kept in.
        source: stored session whose first messages it keeps; None if there is none yet. If it is
            not `session_id`, the turn begins a branch.
        num_kept: first messages of the source that stay.
        new: messages to append before the answer.
    """

    session_id: str
    source: SessionSummary | None
    num_kept: int
    new: tuple[Message, ...]

    @property
    def is_branch(self) -> bool:
        """Return whether the source goes on without this turn."""
        return self.source is not None and not self.source.id.endswith(f"/{self.session_id}")


class PlaceFinder:
    """Find the places of turns, within one state of the database.

    Args:
        log: of the sessions.
    """

    def __init__(self, log: SessionLog) -> None:
        self._log = log

    def named(
        self,
        owner: str,
        session_id: str,
        source: SessionSummary | None,
        said: Sequence[Told],
        *,
        is_retry: bool,
    ) -> Place:
        """Return the place of a turn of a session that a request names.

        The request may hold all of the session, a part of it, or its last message. Messages up to
        the last answer are known if the session has as many of the same role and text. Those after
        it are new, unless the session ends with them and their answer: then the request is a retry,
        and its answer replaces the one before.

        Args:
            owner: of the session.
            session_id: the name.
            source: the session; None if it is not there.
            said: messages of the request.
            is_retry: the client says that it sends the request again.
        """
        first_new = max((n for n, one in enumerate(said, 1) if one.role == _ANSWER), default=0)
        history, new = said[:first_new], said[first_new:]
        key = session_key(owner, session_id)
        is_replaced = self._is_answered(key, history, new, is_retry)
        repeated = said if is_replaced else history
        missing = _beyond(repeated, self.known_rows(key, repeated))
        missing += () if is_replaced else new
        num_kept = 0 if source is None else source.num_messages - is_replaced
        return Place(session_id, source, num_kept, tuple(one.message for one in missing))

    def by_history(
        self, owner: str, group: str, said: Sequence[Told], new_id: str, *, is_retry: bool
    ) -> Place:
        """Return the place of a turn whose session is found by the messages that it repeats.

        It goes on with the session that knows the longest beginning of the history: at its end, or
        on a branch. A session that ends with these messages and an answer gets a new answer.

        Args:
            owner: of the sessions.
            group: chat that the request names; "" for none.
            said: messages of the request.
            new_id: of a session that is begun.
            is_retry: the client says that it sends the request again.
        """
        messages = [one.message for one in said]
        digests = history_digests(messages)
        if len(said) > 1 or is_retry:
            for source in self._sources(owner, group, digests[-1:]):
                if source.num_messages == len(said) + 1:
                    return Place(_id_of(source), source, len(said), ())
        for num_known in range(len(said) - 1, 0, -1):
            sources = self._sources(owner, group, digests[num_known - 1 : num_known])
            for source in sources:
                if source.num_messages == num_known:
                    return Place(_id_of(source), source, num_known, tuple(messages[num_known:]))
            if sources:
                return Place(new_id, sources[0], num_known, tuple(messages[num_known:]))
        return Place(new_id, None, 0, tuple(messages))

    def known_rows(self, key: str, said: Sequence[Told]) -> dict[Told, list[int]]:
        """Return the rows of messages of each role and text, at most one for each that is said.

        The newest of a session come first.
        """
        return {one: self._log.seen.rows(key, one, n) for one, n in Counter(said).items()}

    def _sources(self, owner: str, group: str, history: Sequence[bytes]) -> list[SessionSummary]:
        """Return the sessions that begin with a history, those that changed last first."""
        found = self._log.store.find_prefix(owner, history, group)
        return [self._log.store.summary(key, owner) for key, _ in found]

    def _is_answered(
        self, key: str, history: Sequence[Told], new: Sequence[Told], is_retry: bool
    ) -> bool:
        """Tell whether a session ends with the new messages and an answer to them.

        The message before them must be the last one of the history, unless the client says that it
        tries again.
        """
        *told, _ = self._log.seen.last_digests(key, len(new) + 2) or [b""]
        if not new or told[-len(new) :] != [one.digest for one in new]:
            return False
        return is_retry or told[: -len(new)] == [one.digest for one in history[-1:]]


def _id_of(source: SessionSummary) -> str:
    return source.id.partition("/")[2]


def _beyond(said: Sequence[Told], known: Mapping[Told, Sequence[int]]) -> list[Told]:
    """Return the messages that are said more often than they are known."""
    counts: Counter[Told] = Counter()
    found = []
    for one in said:
        counts[one] += 1
        if counts[one] > len(known[one]):
            found.append(one)
    return found
