"""Erase messages of a session, and whatever still encodes them."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from streamingllm.errors import InputError
from streamingllm.sessions.facts import Fact
from streamingllm.sessions.pinning import Pinning
from streamingllm.sessions.residency import ResidencyPolicy
from streamingllm.sessions.response_store import ResponseStore
from streamingllm.sessions.session import Session, StreamPlace
from streamingllm.sessions.session_table import SessionTable
from streamingllm.sessions.snapshot_shelf import SnapshotShelf
from streamingllm.sessions.sql_store import SqlStore
from streamingllm.sessions.template_cache import TemplateCache
from streamingllm.sessions.transcript import Message
from streamingllm.sessions.turn_input import TurnInput

_TITLE = "title"  # the metadata that the page makes of a first message
_MIN_TITLE_CHARACTERS = 4


@dataclass(frozen=True)
class _Rest:
    """Hold what follows the first erased message, without the erased ones.

    Args:
        first: number of the first message that is placed anew.
        fed: messages that tokens stand for.
        told: those tokens.
        unfed: messages that the next turn feeds.
    """

    first: int
    fed: tuple[Message, ...]
    told: TurnInput | None
    unfed: tuple[Message, ...]


class Erasure:
    """Erase messages from sessions whose lock is held.

    Rows, index, vectors, snapshots and responses are deleted. Keys and values are set to zero,
    because they encode the messages. The next turn reads what is left again.

    Args:
        table: sessions in memory.
        store: of durable ones.
        templates: encodes what is left.
        pinning: replaces pinned facts.
        residency: drops streams.
        shelf: snapshots on disk.
        responses: that may repeat a message.
    """

    def __init__(
        self,
        table: SessionTable,
        store: SqlStore,
        templates: TemplateCache,
        pinning: Pinning,
        residency: ResidencyPolicy,
        shelf: SnapshotShelf,
        responses: ResponseStore,
    ) -> None:
        self._table = table
        self._store = store
        self._templates = templates
        self._pinning = pinning
        self._residency = residency
        self._shelf = shelf
        self._responses = responses

    async def erase(self, session: Session, message_ids: Collection[str]) -> int:
        """Erase messages, facts pinned from them, and a title made of them; return how many.

        Raises:
            InputError: a message is the pinned system prompt.
            UnsupportedFeatureError: the template cannot show what is left.
        """
        numbers = [
            number for number, message in enumerate(session.transcript) if message.id in message_ids
        ]
        if not numbers:
            return 0
        gone = [session.transcript[number] for number in numbers]
        if numbers[0] == 0 and gone[0].role == "system":
            raise InputError(
                f"message_id={gone[0].id!r} is the system prompt; send another one instead"
            )
        rest = await self._rest(session, numbers)
        await self._drop_state(session)
        facts = tuple(fact for fact in session.facts if fact.message_id not in message_ids)
        self._put(session, rest)
        if facts != session.facts:
            await self._pinning.replace_facts(session, facts)
        if session.is_stored:
            words = [word for message in gone for word in (message.id, message.text.strip())]
            await asyncio.to_thread(self._responses.erase, session.owner, session.id, words)
        await self._erase_title(session, gone)
        await self._table.commit(session)
        return len(gone)

    async def replace_facts(self, session: Session, facts: Sequence[Fact]) -> None:
        """Let a session pin other facts; no state is left that has read the old ones.

        Raises:
            InputError: the pinned prefix is longer than what may be pinned.
            UnsupportedFeatureError: the template has no place for facts.
        """
        await self._pinning.replace_facts(session, tuple(facts))
        await self._drop_state(session)
        await self._table.commit(session)

    async def _rest(self, session: Session, numbers: Sequence[int]) -> _Rest:
        """Encode what is left; the session is not changed."""
        unfed_from = len(session.transcript) - session.num_unfed
        first = min(numbers[0], unfed_from)
        starts = (session.transcript.turn_start(n) for n in range(session.transcript.num_turns))
        first = max((start for start in starts if start <= first), default=first)
        kept = [
            session.transcript[number]
            for number in range(first, len(session.transcript))
            if number not in set(numbers)
        ]
        num_unfed = session.num_unfed - sum(number >= unfed_from for number in numbers)
        num_fed = len(kept) - num_unfed
        while num_fed and (kept[num_fed - 1].role != "assistant" or kept[num_fed - 1].tool_calls):
            num_fed -= 1
        fed, unfed = tuple(kept[:num_fed]), tuple(kept[num_fed:])
        if not fed:
            return _Rest(first, (), None, unfed)
        draft = replace(
            session,
            transcript=session.transcript.fork(),
            token_log=session.token_log.fork(),
            place=StreamPlace(),
        )
        draft.truncate(first)
        told = await self._templates.encode(draft, fed)
        if len(told.messages) != len(fed) - 1:  # the last answer follows nothing that it answers
            return _Rest(first, (), None, (*fed, *unfed))
        return _Rest(first, fed, told, unfed)

    def _put(self, session: Session, rest: _Rest) -> None:
        session.truncate(rest.first)
        session.is_feeding = False
        if rest.told is not None:
            for message in rest.told.messages:
                session.transcript.append(message)
            session.token_log.extend(rest.told.ids)
            answer = replace(rest.fed[-1], first=rest.told.answer_first, begins_turn=False)
            session.transcript.append(replace(answer, stop=len(session.token_log)))
        session.append_unfed(rest.unfed)
        session.place = StreamPlace()

    async def _drop_state(self, session: Session) -> None:
        await self._residency.drop(session, wipe=True)
        await self._shelf.discard(session)

    async def _erase_title(self, session: Session, gone: Sequence[Message]) -> None:
        metadata = without_title(session.metadata, gone)
        if metadata == session.metadata:
            return
        session.metadata = metadata
        if session.is_stored:
            await asyncio.to_thread(
                self._store.update_metadata, session.key, session.owner, session.metadata
            )


def without_title(metadata: Mapping[str, Any], gone: Sequence[Message]) -> dict[str, Any]:
    """Return metadata without a title that was made of one of these messages."""
    title = str(metadata.get(_TITLE, "")).rstrip("…. ")
    is_made = len(title) >= _MIN_TITLE_CHARACTERS and any(
        title in " ".join(message.text.split()) for message in gone
    )
    return {k: v for k, v in metadata.items() if not (is_made and k == _TITLE)}
