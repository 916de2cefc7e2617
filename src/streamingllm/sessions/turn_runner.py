"""Run one turn: feed what was said, stream the answer, make it durable."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace

from streamingllm.engine import AsyncEngine, Usage
from streamingllm.errors import InputError, StreamingLLMError
from streamingllm.finish_reason import FinishReason
from streamingllm.sessions.answer import Answer
from streamingllm.sessions.memory_tool import MAX_SEARCHES, MemoryTool
from streamingllm.sessions.notices import notices_due
from streamingllm.sessions.recall import Recall, Search
from streamingllm.sessions.residency import ResidencyPolicy
from streamingllm.sessions.session import Session
from streamingllm.sessions.session_settings import SessionSettings
from streamingllm.sessions.session_table import SessionTable
from streamingllm.sessions.template_cache import TemplateCache
from streamingllm.sessions.transcript import Message
from streamingllm.sessions.turn import (
    TurnEnded,
    TurnEvent,
    TurnRequest,
    TurnStarted,
    TurnUsage,
)
from streamingllm.sessions.turn_input import TurnInput
from streamingllm.sessions.turn_params import TurnParams
from streamingllm.sessions.turn_recall import RecalledInput, TurnRecall
from streamingllm.stream.sampling import SamplingParams


@dataclass
class _Turn:
    """Hold what a running turn changes, so that it can be taken back."""

    session: Session
    request: TurnRequest
    num_messages_before: int
    pending: tuple[Message, ...]
    recalled: RecalledInput
    num_cached: int
    num_fed: int = 0
    answer_first: int = 0
    searches: tuple[Search, ...] = ()
    has_submitted: bool = False
    has_answer: bool = False
    has_ended: bool = False


class TurnRunner:
    """Run the turns of sessions whose lock is held.

    Args:
        engine: generates.
        params: of turns.
        table: sessions, and the store of those that are durable.
        templates: encodes messages.
        residency: brings sessions to the device.
        settings: what happens when a client goes away.
        recall: puts back what left the window.
        search: runs the searches of models; None without a memory that models may search.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        params: TurnParams,
        table: SessionTable,
        templates: TemplateCache,
        residency: ResidencyPolicy,
        settings: SessionSettings,
        recall: TurnRecall,
        search: MemoryTool | None = None,
    ) -> None:
        self._engine = engine
        self._params = params
        self._table = table
        self._templates = templates
        self._residency = residency
        self._settings = settings
        self._recall = recall
        self._search = search

    async def run(
        self, session: Session, request: TurnRequest, new: tuple[Message, ...]
    ) -> AsyncGenerator[TurnEvent, None]:
        """Feed messages to a session and stream its answer; see `SessionManager.respond`."""
        pending = tuple(
            session.transcript[i]
            for i in range(len(session.transcript) - session.num_unfed, len(session.transcript))
        )
        may_recall = request.truncation == "auto" and not request.is_side_task
        recalled = await self._recall.encode(session, (*pending, *new), may_recall=may_recall)
        told = recalled.told
        params = await self._params.of(session, request, told)
        turn = _Turn(
            session,
            request,
            len(session.transcript) - len(pending),
            pending,
            recalled,
            num_cached=_num_reused(session),
            num_fed=len(told.ids) + (session.transcript.num_turns == 0) * len(session.token_log),
        )
        answers = self._params.answers(session, request, told.prefill, params.n)
        stream_id = await self._residency.bring(session)
        session.is_running = True
        try:
            self._append_input(turn, told)
            notices = notices_due(session, self._settings)
            yield TurnStarted(
                replace(session.view(notices), recall=recalled.recall),
                answers[0].message_id,
                turn.num_cached + turn.num_fed,
                turn.num_cached,
            )
            async with contextlib.aclosing(
                self._generate_and_search(turn, stream_id, params, answers)
            ) as events:
                async for event in events:
                    yield event
            usage = await self._finish(turn, answers)
            for answer in answers:
                yield answer.ended()
            yield TurnEnded(replace(session.view(notices), recall=_recall_of(turn)), usage)
        finally:
            session.is_running = False
            if not turn.has_ended:
                await asyncio.shield(self._abandon(turn, answers[0]))

    async def count_tokens(self, session: Session, new: tuple[Message, ...]) -> int:
        """Return how many tokens an answer would build on."""
        told = await self._templates.encode(session, new)
        return len(session.token_log) - session.num_forgotten_tokens + len(told.ids)

    def _append_input(self, turn: _Turn, told: TurnInput) -> None:
        session = turn.session
        session.transcript.truncate(turn.num_messages_before)
        session.num_stored_messages = min(session.num_stored_messages, turn.num_messages_before)
        session.num_unfed = 0
        for message in told.messages:
            session.transcript.append(message)
        session.token_log.extend(told.ids)
        turn.answer_first = told.answer_first

    async def _generate_and_search(
        self, turn: _Turn, stream_id: str, params: SamplingParams, answers: list[Answer]
    ) -> AsyncGenerator[TurnEvent, None]:
        """Generate; while the one answer searches the memory, feed what is found and go on."""
        session = turn.session
        while True:
            async with contextlib.aclosing(
                self._generate(turn, stream_id, params, answers)
            ) as events:
                async for event in events:
                    yield event
            call = answers[0].searching()
            is_whole = answers[0].reason is FinishReason.STOP
            if self._search is None or call is None or len(answers) > 1 or not is_whole:
                return
            if len(turn.searches) >= MAX_SEARCHES:
                return
            ids, searches = await self._search.results(session, call, turn.answer_first)
            turn.searches += tuple(searches)
            turn.num_fed += len(ids)
            session.token_log.extend(ids)
            params, answers[0] = self._params.going_on(session, turn.request, params, answers[0])

    async def _generate(
        self, turn: _Turn, stream_id: str, params: SamplingParams, answers: list[Answer]
    ) -> AsyncGenerator[TurnEvent, None]:
        session, place = turn.session, turn.session.place
        missing = session.token_log[place.num_streamed :].tolist()
        if session.eviction == "turn":
            await self._mark_turns(session, stream_id)
        seconds = turn.request.deadline or self._settings.turn_seconds
        attempt = turn.request.attempt
        outputs = self._engine.generate(
            stream_id,
            missing,
            params,
            deadline=seconds,
            forced_ids=attempt.sent_ids if attempt is not None else (),
        )
        turn.has_submitted = True
        place.extend(len(missing))
        async with contextlib.aclosing(outputs):
            async for output in outputs:
                if output.sample_index == 0:
                    session.token_log.extend(output.token_ids)
                    place.extend(len(output.token_ids))
                    if attempt is not None:
                        attempt.on_ids(output.token_ids)
                    self._note_usage(session, output.usage)
                for event in answers[output.sample_index].add(output):
                    yield event

    async def _mark_turns(self, session: Session, stream_id: str) -> None:
        """Mark the turns that start within what is fed now."""
        place = session.place
        for number in range(session.transcript.num_turns - 1, -1, -1):
            start = session.transcript[session.transcript.turn_start(number)].first
            if start < place.num_streamed:
                first = number + 1
                break
        else:
            first = 0
        for number in range(first, session.transcript.num_turns):
            start = session.transcript[session.transcript.turn_start(number)].first
            await self._engine.mark_turn(stream_id, start - place.num_streamed)

    def _note_usage(self, session: Session, usage: Usage) -> None:
        if usage.num_cached_tokens:
            session.place.num_evicted = usage.num_evicted_tokens

    async def _finish(self, turn: _Turn, answers: list[Answer]) -> TurnUsage:
        """Append the answer and commit; what fails takes the turn back."""
        session, answer = turn.session, answers[0]
        if answer.reason is FinishReason.FAILED:
            raise answer.error or StreamingLLMError("the stream failed; retry")
        self._append_answer(turn, answer)
        await asyncio.shield(self._table.commit(session))
        turn.has_ended = True
        return TurnUsage(
            num_cached_tokens=turn.num_cached,
            num_fed_tokens=turn.num_fed,
            num_generated_tokens=sum(a.num_tokens for a in answers),
            num_reasoning_tokens=sum(a.num_reasoning_tokens for a in answers),
            num_evicted_tokens=session.num_forgotten_tokens,
        )

    def _append_answer(self, turn: _Turn, answer: Answer) -> None:
        session, turn.has_answer = turn.session, True
        session.transcript.append(
            replace(
                answer.message(with_prefill=True),
                first=turn.answer_first,
                stop=len(session.token_log),
            )
        )
        self._recall.take_out(session, turn.recalled)

    async def _abandon(self, turn: _Turn, answer: Answer) -> None:
        """Keep the partial answer, or go back to the last complete turn."""
        session, place = turn.session, turn.session.place
        if turn.has_submitted and place.stream_id is not None:
            try:
                total = await self._engine.num_tokens(place.stream_id) + place.num_skipped
            except InputError:  # the stream failed and is closed, or the engine is
                await self._residency.drop(session)
            else:
                place.num_agreeing = min(place.num_streamed, total)
                place.num_streamed = total
        keeps = (
            self._settings.on_disconnect == "keep"
            and answer.num_tokens > 0
            and not turn.has_answer  # which could not be stored
            and answer.reason is not FinishReason.FAILED
        )
        if keeps:
            answer.flush()
            self._append_answer(turn, answer)
        else:
            session.truncate(turn.num_messages_before)
            session.append_unfed(turn.pending)
        with contextlib.suppress(StreamingLLMError):  # the next commit repeats it
            await self._table.commit(session)


def _recall_of(turn: _Turn) -> Recall | None:
    recall = turn.recalled.recall
    return replace(recall or Recall(), searches=turn.searches) if turn.searches else recall


def _num_reused(session: Session) -> int:
    """Return how many tokens of earlier turns are still visible; a pinned prefix is fed once."""
    if not session.transcript.num_turns:
        return 0
    return len(session.token_log) - session.num_forgotten_tokens
