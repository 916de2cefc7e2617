"""Read an unending feed, such as a meeting or a log, and answer questions about it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from dataclasses import replace

from streamingllm.engine import AsyncEngine
from streamingllm.errors import InputError
from streamingllm.sessions.branching import Branching
from streamingllm.sessions.residency import ResidencyPolicy
from streamingllm.sessions.session import Session
from streamingllm.sessions.session_table import SessionTable
from streamingllm.sessions.template_cache import TemplateCache
from streamingllm.sessions.transcript import Message
from streamingllm.sessions.turn import TurnEvent, TurnRequest
from streamingllm.sessions.turn_runner import TurnRunner
from streamingllm.stream.sampling import SamplingParams

FEED = "feed"
_READ_ONLY = SamplingParams(max_new_tokens=0)


class FeedRunner:
    """Feed text into an open turn of the user, and answer on branches.

    The feed is one turn of the user that does not end. A question is asked on a branch of the
    stream, so that the feed goes on meanwhile and the question leaves no trace in it.

    Args:
        engine: reads.
        table: sessions, and the store of those that are durable.
        templates: encodes text.
        residency: brings sessions to the device.
        branching: makes branches.
        turns: answers.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        table: SessionTable,
        templates: TemplateCache,
        residency: ResidencyPolicy,
        branching: Branching,
        turns: TurnRunner,
    ) -> None:
        self._engine = engine
        self._table = table
        self._templates = templates
        self._residency = residency
        self._branching = branching
        self._turns = turns

    async def feed(self, session: Session, text: str) -> None:
        """Append text to the feed of a session and let the model read it; its lock is held.

        Raises:
            CapacityError: too many turns wait for a slot.
            InputError: the text is empty.
        """
        if not text:
            raise InputError("text is empty; feed at least one character")
        before, ids = len(session.transcript), []
        if not session.is_feeding:
            ids += (await self._templates.user_turn_ids(session))[0]
        ids += await self._templates.encode_text(text, is_beginning=False)
        first, num_tokens = len(session.token_log), len(session.token_log)
        said = replace(Message.of_text("user", text), name=FEED, begins_turn=True)
        session.transcript.append(replace(said, first=first, stop=first + len(ids)))
        session.token_log.extend(ids)
        was_feeding, session.is_feeding = session.is_feeding, True
        try:
            await self._read(session)
            await self._table.commit(session)
        except BaseException:
            session.truncate(before)
            session.truncate_tokens(num_tokens)
            session.is_feeding = was_feeding
            raise

    async def ask(self, session: Session, request: TurnRequest) -> AsyncGenerator[TurnEvent, None]:
        """Answer on a branch of the feed; the session is locked only until the branch is made.

        Raises:
            InputError: the session has no feed.
        """
        async with session.lock:
            if not session.is_feeding:
                raise InputError(f"session_id={session.id!r} has no feed; feed it something first")
            branch = await self._branching.fork(session, len(session.transcript), is_stored=False)
            branch.memory_key = session.key
        async with branch.lock:
            try:
                events = self._turns.run(branch, request, request.messages)
                async with contextlib.aclosing(events):
                    async for event in events:
                        yield _of_session(event, session.id)
            finally:
                self._table.forget(branch)
                await asyncio.shield(self._residency.drop(branch))

    async def _read(self, session: Session) -> None:
        stream_id = await self._residency.bring(session)
        place = session.place
        missing = session.token_log[place.num_streamed :].tolist()
        outputs = self._engine.generate(stream_id, missing, _READ_ONLY)
        async with contextlib.aclosing(outputs):
            async for output in outputs:
                if output.error is not None:
                    await self._residency.drop(session)
                    raise output.error
                if output.usage.num_cached_tokens:
                    place.num_evicted = output.usage.num_evicted_tokens
        place.extend(len(missing))


def _of_session(event: TurnEvent, session_id: str) -> TurnEvent:
    """Let the view of a branch name its session."""
    view = getattr(event, "view", None)
    if view is None:
        return event
    return replace(event, view=replace(view, session_id=session_id))
