"""Keep the turns of sessions that another server answers, each once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from streamingllm.gateway.seen_messages import Told
from streamingllm.gateway.session_log import SessionLog, SessionSettings
from streamingllm.gateway.token_count import message_tokens
from streamingllm.gateway.turn_place import Place, PlaceFinder
from streamingllm.memory.passages import recalled_block, recalled_lines
from streamingllm.sessions.recall import Recall
from streamingllm.sessions.session import session_key
from streamingllm.sessions.session_table import new_session_id
from streamingllm.sessions.transcript import Message, new_message_id
from streamingllm.sessions.turn import Identity, SessionView

_HEAD_ROLES = ("system", "developer")  # clients send them with every request


@dataclass(frozen=True)
class Asked:
    """Describe a request for a turn.

    Args:
        owner: of the session.
        identity: of the session; of kind "session", "chat" or "transcript".
        told: messages of the request.
        is_retry: the client says that it sends the request again.
        metadata: of a session that the turn begins.
    """

    owner: str
    identity: Identity
    told: tuple[Told, ...]
    is_retry: bool = False
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def group(self) -> str:
        """Chat that the session is one of; "" for none."""
        return self.identity.id if self.identity.kind == "chat" else ""

    @property
    def said(self) -> list[Told]:
        """Messages without the head."""
        return _said(self.told)

    @property
    def system_prompt(self) -> str:
        """Texts of the head."""
        return "\n\n".join(one.text for one in self.told if one.role in _HEAD_ROLES)


@dataclass(frozen=True)
class Turn:
    """Describe a turn that is to be answered.

    Args:
        asked: the request.
        place: where it goes on.
        view: what the server sees of the session, and what was recalled.
        num_forgotten: first messages of the session that the server does not see.
        answer_id: of the message that the answer will be.
    """

    asked: Asked
    place: Place
    view: SessionView
    num_forgotten: int
    answer_id: str

    @property
    def recall(self) -> Recall:
        """Texts that the request does not hold and its last message is about."""
        return self.view.recall or Recall()

    @property
    def block(self) -> str:
        """Text that stands before the last message; "" if nothing was recalled."""
        texts = self.recall.texts
        return recalled_block(recalled_lines(texts)) if texts else ""

    def within(self, most: int, count_tokens: Callable[[str], int]) -> Turn:
        """Return the turn without the worst of what was recalled, so that its block fits."""
        turn = self
        while turn.recall.texts and count_tokens(turn.block) > most:
            recall = replace(turn.recall, texts=turn.recall.texts[:-1])
            turn = replace(turn, view=replace(turn.view, recall=recall))
        return turn


class TurnMemory:
    """Find out what is new in a request, recall for it, and keep it once it is answered.

    Methods may be called from any thread.

    Args:
        log: of the sessions.
        budget_tokens: bound on the recalled texts of a turn, by an estimate.
    """

    def __init__(self, log: SessionLog, budget_tokens: int) -> None:
        self.log = log
        self._budget_tokens = budget_tokens
        self._finder = PlaceFinder(log)

    def begin(self, asked: Asked, sent: Sequence[Told] | None = None) -> Turn:
        """Return the turn of a request before it is answered; nothing is written.

        Args:
            asked: the request.
            sent: those of its messages that the server gets; None for all.
        """
        shown = asked.told if sent is None else sent
        with self.log.reading():
            place = self._place(asked, new_session_id())
            num_messages = place.num_kept + len(place.new)
            num_forgotten = max(0, num_messages - len(_said(shown)))
            view = self._view(asked, place, shown, num_forgotten)
        return Turn(asked, place, view, num_forgotten, new_message_id())

    def end(self, turn: Turn, answer: str) -> str:
        """Keep the messages of a turn and its answer, all of them or none.

        Returns:
            id of the session; another one than before if that one went on meanwhile.
        """
        asked, owner = turn.asked, turn.asked.owner
        message = replace(Told("assistant", answer).message, id=turn.answer_id)
        with self.log.transaction():
            is_new = turn.place.source is None or turn.place.is_branch
            place = self._place(asked, turn.place.session_id if is_new else new_session_id())
            stored = SessionSettings() if place.source is None else SessionSettings.of(place.source)
            prompt = asked.system_prompt or stored.system_prompt
            settings = SessionSettings(prompt, turn.num_forgotten)
            if place.source is not None and place.is_branch:
                branch = session_key(owner, place.session_id)
                self.log.store.fork(
                    place.source.id, owner, branch, place.num_kept, 0, settings=settings.as_json
                )
            self.log.commit(
                owner,
                place.session_id,
                place.num_kept,
                (*_same(turn.place.new, place.new), message),
                settings,
                metadata=asked.metadata,
                group=asked.group,
            )
        return place.session_id

    def _place(self, asked: Asked, new_id: str) -> Place:
        owner, said, is_retry = asked.owner, asked.said, asked.is_retry
        if asked.identity.kind == "session":
            name = asked.identity.id
            source = self.log.find(owner, name)
            return self._finder.named(owner, name, source, said, is_retry=is_retry)
        return self._finder.by_history(owner, asked.group, said, new_id, is_retry=is_retry)

    def _view(
        self, asked: Asked, place: Place, shown: Sequence[Told], num_forgotten: int
    ) -> SessionView:
        """Return what the server sees of a session, and what is recalled for it."""
        log, key = self.log, "" if place.source is None else place.source.id
        end = log.seen.at(key, place.num_kept)
        first = log.seen.at(key, num_forgotten) if num_forgotten < place.num_kept else None
        pinned = log.num_pinned_tokens(asked.system_prompt)
        added = (message_tokens(log.count_tokens, message.text) for message in place.new)
        seen = pinned + log.seen.num_tokens(key, end and end[0]) + sum(added)
        sent = (message_tokens(log.count_tokens, one.text) for one in _said(shown))
        num_head = int(bool(asked.system_prompt))
        new = place.new[max(0, num_forgotten - place.num_kept) :]
        return SessionView(
            session_id=place.session_id,
            num_seen_tokens=seen,
            num_visible_tokens=min(seen, pinned + sum(sent)),
            num_pinned_tokens=pinned,
            first_visible_message=num_head + num_forgotten,
            first_visible_message_id=first[1] if first else new[0].id if new else None,
            num_messages=num_head + place.num_kept + len(place.new),
            recall=self._recall(asked, place, key, self._excluded(place, key, shown), pinned),
        )

    def _excluded(self, place: Place, key: str, shown: Sequence[Told]) -> Container[int]:
        """Return the rows of messages that the server gets, and of those that the turn drops."""
        new = Counter(Told(message.role, message.text) for message in place.new)
        known = self._finder.known_rows(key, [*(Counter(_said(shown)) - new).elements()])
        dropped = self.log.seen.at(key, place.num_kept)
        return _Rows({row for rows in known.values() for row in rows}, dropped and dropped[0])

    def _recall(
        self, asked: Asked, place: Place, key: str, excluded: Container[int], pinned: int
    ) -> Recall:
        """Recall for the last message, if a user says it; positions are those of tokens."""
        if not asked.told or asked.told[-1].role != "user":
            return Recall()
        seen, query = self.log.seen, asked.told[-1].text
        recall = self.log.memory.recall(key, query, excluded, self._budget_tokens)
        texts = tuple(
            replace(text, position=pinned + seen.num_tokens(key, text.position))
            for text in recall.texts
        )
        if len(place.new) > 1:  # messages that the memory has not read may have the words
            return Recall(texts)
        return replace(recall, texts=texts)


@dataclass(frozen=True)
class _Rows(Container[int]):
    """Hold rows of a session: some, and all from one on."""

    some: Collection[int]
    first: int | None

    def __contains__(self, row: object) -> bool:
        return row in self.some or (
            self.first is not None and isinstance(row, int) and row >= self.first
        )


def _same(said: Sequence[Message], again: Sequence[Message]) -> Sequence[Message]:
    """Return `said`, whose ids a client was told, if `again` says the same."""
    texts = ([(message.role, message.text) for message in one] for one in (said, again))
    return said if next(texts) == next(texts) else again


def _said(told: Iterable[Told]) -> list[Told]:
    return [one for one in told if one.role not in _HEAD_ROLES]
