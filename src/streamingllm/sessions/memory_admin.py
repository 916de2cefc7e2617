"""Pin facts to a session, correct them, and forget messages."""

from __future__ import annotations

from collections.abc import Callable, Collection

from streamingllm.errors import InputError
from streamingllm.sessions.erasure import Erasure
from streamingllm.sessions.facts import Fact, corrected, new_fact, without
from streamingllm.sessions.session import Session
from streamingllm.sessions.session_admin import SessionAdmin


class MemoryAdmin(SessionAdmin):
    """Change what a session remembers; see `SessionManager`."""

    _erasure: Erasure

    async def forget(self, owner: str, session_id: str, message_ids: Collection[str]) -> int:
        """Erase messages from a session and from its branches, and whatever encodes them.

        A running answer of the session ends first. Nothing that is left has read the messages.

        Returns:
            how many messages there were, those of branches included.

        Raises:
            InputError: a message is not in the session, or is its system prompt.
            SessionNotFoundError: the owner has none of that id.
            UnsupportedFeatureError: the template cannot show what would be left; the session is as
                it was.
        """
        await self.stop(owner, session_id)
        wanted = frozenset(message_ids)
        async with self._held(owner, session_id) as session:
            known = {message.id for message in session.transcript}
            for message_id in sorted(wanted - known):
                raise InputError(
                    f"message_id={message_id!r} is not in the session; list its messages"
                )
            num_erased = await self._erasure.erase(session, wanted)
        for branch in (await self.get(owner, session_id)).branches:
            await self.stop(owner, branch.id)
            async with self._held(owner, branch.id) as session:
                num_erased += await self._erasure.erase(session, wanted)
        return num_erased

    async def pin_fact(
        self, owner: str, session_id: str, text: str, message_id: str | None = None
    ) -> Fact:
        """Pin a fact to a session, after its system prompt; the next turn reads all of it again.

        Args:
            owner: of the session.
            session_id: that pins the fact.
            text: of the fact.
            message_id: that it comes from; if the message is forgotten, so is the fact.

        Raises:
            InputError: the text is empty, the message is not there, or the pinned prefix would be
                too long; the session is as it was.
            SessionNotFoundError: the owner has none of that id.
            UnsupportedFeatureError: the template has no place for facts.
        """
        fact = new_fact(text, message_id or "")

        def with_fact(session: Session) -> tuple[Fact, ...]:
            if message_id is not None and session.transcript.number_of(message_id) is None:
                raise InputError(
                    f"message_id={message_id!r} is not in the session; list its messages"
                )
            return (*session.facts, fact)

        await self._change_facts(owner, session_id, with_fact)
        return fact

    async def correct_fact(self, owner: str, session_id: str, fact_id: str, text: str) -> Fact:
        """Replace the text of a pinned fact and return it; see `pin_fact`.

        Raises:
            FactNotFoundError: the session pins none of that id.
        """
        facts = await self._change_facts(
            owner, session_id, lambda session: corrected(session.facts, fact_id, text)
        )
        return next(fact for fact in facts if fact.id == fact_id)

    async def unpin_fact(self, owner: str, session_id: str, fact_id: str) -> None:
        """Take a fact out of the pinned prefix; see `correct_fact`."""
        await self._change_facts(owner, session_id, lambda session: without(session.facts, fact_id))

    async def _change_facts(
        self, owner: str, session_id: str, change: Callable[[Session], tuple[Fact, ...]]
    ) -> tuple[Fact, ...]:
        async with self._held(owner, session_id) as session:
            facts = change(session)
            await self._erasure.replace_facts(session, facts)
        return facts
