"""Sessions without end on one engine: turns, branches, tiers, durability."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace

from streamingllm.engine import AsyncEngine
from streamingllm.models import LanguageModel
from streamingllm.sessions.branching import Branching
from streamingllm.sessions.claims import Claims
from streamingllm.sessions.erasure import Erasure
from streamingllm.sessions.feed_runner import FeedRunner
from streamingllm.sessions.housekeeping import Housekeeping
from streamingllm.sessions.memory_admin import MemoryAdmin
from streamingllm.sessions.memory_tool import MemoryTool
from streamingllm.sessions.own_task import in_own_task
from streamingllm.sessions.pinning import Pinning
from streamingllm.sessions.recall import Recaller
from streamingllm.sessions.residency import ResidencyPolicy
from streamingllm.sessions.response_store import ResponseStore
from streamingllm.sessions.session import Session
from streamingllm.sessions.session_lease import SessionLeases
from streamingllm.sessions.session_ownership import SessionOwnership
from streamingllm.sessions.session_settings import SessionSettings
from streamingllm.sessions.session_table import SessionTable
from streamingllm.sessions.session_types import (
    ManagerStats,
    TextRequest,
)
from streamingllm.sessions.snapshot_shelf import SnapshotShelf
from streamingllm.sessions.sql_store import SqlStore
from streamingllm.sessions.template_cache import TemplateCache
from streamingllm.sessions.text_runner import TextRunner
from streamingllm.sessions.transcript import Message
from streamingllm.sessions.turn import SessionView, TurnEvent, TurnRequest
from streamingllm.sessions.turn_attempt import current_attempt
from streamingllm.sessions.turn_params import TurnParams
from streamingllm.sessions.turn_recall import TurnRecall
from streamingllm.sessions.turn_report import TurnReport, TurnWatch
from streamingllm.sessions.turn_runner import TurnRunner


class SessionManager(MemoryAdmin):
    """Answer turns of sessions that never end, and keep them.

    All coroutines run in one event loop. Tokenising, files and the engine have threads of their
    own.

    Args:
        engine: with `eviction="turn"`; sessions that evict by token mark no turn. `close` closes
            it.
        lm: its model and tokenizer.
        store: of sessions; `close` closes it.
        settings: limits, tiers, and what the operator decides.
        num_slots: of the engine.
        bytes_per_stream: of one slot.
        cache_size: of a stream.
        max_pinned_tokens: longest pinned prefix.
        recaller: a memory that puts back what left the window.
        leases: of sessions, where several processes share the store.

    Attributes:
        on_turn: called with the report of each turn that has ended, if it was accepted.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        lm: LanguageModel,
        store: SqlStore,
        settings: SessionSettings,
        *,
        num_slots: int,
        bytes_per_stream: int,
        cache_size: int,
        max_pinned_tokens: int,
        recaller: Recaller | None = None,
        leases: SessionLeases | None = None,
    ) -> None:
        ownership = None if leases is None else SessionOwnership(leases)
        table = SessionTable(store, cache_size, ownership=ownership)
        shelf = SnapshotShelf(store, settings.disk_bytes, is_shared=leases is not None)
        self._templates = TemplateCache(lm)
        residency = ResidencyPolicy(
            engine,
            shelf,
            settings,
            num_slots=num_slots,
            bytes_per_stream=bytes_per_stream,
            window_size=cache_size,
        )
        if ownership is not None:
            ownership.on_lost, ownership.on_loaded = residency.drop, shelf.follow
        has_search = settings.has_memory_tool and recaller is not None
        pinning = Pinning(self._templates, residency, max_pinned_tokens, has_search=has_search)
        branching = Branching(table, store, pinning, residency, settings, cache_size=cache_size)
        super().__init__(engine, lm, store, table, branching, residency, shelf)
        self.settings = settings
        self.cache_size = cache_size
        self.responses = ResponseStore(store.database, max_responses=settings.max_responses)
        params = TurnParams(engine, lm, self._templates, settings, cache_size)
        budget = int(settings.recall_share * cache_size)
        recall = TurnRecall(
            recaller,
            self._templates,
            budget_tokens=budget,
            max_rewind_tokens=settings.recall_rewind_tokens,
        )
        search = None
        if has_search and recaller is not None:
            search = MemoryTool(recaller, self._templates, budget)
        self._turns = TurnRunner(
            engine, params, table, self._templates, residency, settings, recall, search
        )
        self._erasure = Erasure(
            table, store, self._templates, pinning, residency, shelf, self.responses
        )
        self._claims = Claims(self._table, store, branching, pinning, params.check)
        self._texts = TextRunner(
            engine, lm, self._templates, self._residency, cache_size, settings.turn_seconds
        )
        self._feeds = FeedRunner(
            engine, self._table, self._templates, self._residency, self._branching, self._turns
        )
        self._housekeeping = Housekeeping(
            self._table, store, self.responses, self._residency, settings
        )
        self._num_running = 0
        self.on_turn: tuple[Callable[[TurnReport], None], ...] = ()

    @property
    def holder(self) -> str:
        """Name of this process among those that share the store; "" if none do."""
        return "" if self._table.ownership is None else self._table.ownership.holder

    # Turns.

    def respond(self, request: TurnRequest) -> AsyncGenerator[TurnEvent, None]:
        """Feed what was said and stream the answer; closing the iterator cancels the turn.

        Yields:
            `TurnStarted` once nothing can be refused any more; deltas; `SampleEnded` of each
            sample and `TurnEnded` once the turn is durable.

        Raises:
            CapacityError: too many turns wait.
            ContextLengthError: `truncation="disabled"`, and the request does not fit.
            InputError: a message cannot be fed, or the pinned prefix is too long.
            SessionNotFoundError: the request names a session that is not there.
            UnsupportedFeatureError: the chat template has no place for a message or a tool.
        """
        watch = TurnWatch(request.owner)
        request = replace(request, attempt=current_attempt())
        return in_own_task(self._watched(watch, self._respond(request, watch)))

    async def _respond(
        self, request: TurnRequest, watch: TurnWatch
    ) -> AsyncGenerator[TurnEvent, None]:
        session: Session | None = None
        try:
            async with self._claims.claim(request) as claim:
                session = claim.session
                watch.begin(claim.new, session.num_forgotten_tokens)
                events = self._turns.run(session, request, claim.new)
                async with contextlib.aclosing(events):
                    async for event in events:
                        claim.has_begun = True
                        yield event
                if request.is_side_task:
                    await self._discard(session)
        except BaseException:
            if session is not None and request.is_side_task:
                await asyncio.shield(self._discard(session))
            raise
        finally:
            if session is not None:
                await asyncio.shield(self._residency.rest(session))
                if self._table.ownership is not None:  # whoever goes on has little to replay
                    self._residency.snapshot_soon(session)

    def complete(self, request: TextRequest) -> AsyncGenerator[TurnEvent, None]:
        """Go on from a text, without a chat template and without a session; see `respond`."""
        watch = TurnWatch(request.owner)
        if isinstance(request.prompt, str):
            watch.begin((Message.of_text("user", request.prompt),))
        return in_own_task(self._watched(watch, self._texts.run(request)))

    async def check_text(self, request: TextRequest) -> None:
        """Refuse what `complete` would refuse because of the request itself; see `TextRunner`."""
        await self._texts.check(request)

    async def _watched(
        self, watch: TurnWatch, events: AsyncGenerator[TurnEvent, None]
    ) -> AsyncGenerator[TurnEvent, None]:
        """Yield the events of a turn if it may wait, and report it at its end."""
        self._residency.slots.check_capacity()
        self._num_running += 1
        try:
            async with contextlib.aclosing(events):
                async for event in events:
                    watch.note(event)
                    yield event
        finally:
            self._num_running -= 1
            if watch.has_started:
                report = watch.report()
                for listener in self.on_turn:
                    listener(report)

    async def count_tokens(self, request: TurnRequest) -> int:
        """Return how many tokens the answer to a request would build on."""
        session = await self._branching.draft(request)
        return await self._turns.count_tokens(session, request.messages)

    async def feed(self, owner: str, session_id: str, text: str) -> SessionView:
        """Append text to the unending feed of a session and let the model read it.

        Raises:
            SessionNotFoundError: the owner has none of that id.
        """
        async with self._held(owner, session_id) as session:
            await self._feeds.feed(session, text)
            view = session.view()
        await self._residency.rest(session)
        return view

    def ask(self, session_id: str, request: TurnRequest) -> AsyncGenerator[TurnEvent, None]:
        """Answer a question about a feed, which goes on meanwhile; see `respond`."""
        watch = TurnWatch(request.owner)
        return in_own_task(self._watched(watch, self._ask(session_id, request, watch)))

    async def _ask(
        self, session_id: str, request: TurnRequest, watch: TurnWatch
    ) -> AsyncGenerator[TurnEvent, None]:
        session = await self._table.get(request.owner, session_id)
        watch.begin(request.messages, session.num_forgotten_tokens)
        async with contextlib.aclosing(self._feeds.ask(session, request)) as events:
            async for event in events:
                yield event

    async def stats(self) -> ManagerStats:
        """Return counts and bytes by tier."""
        return await self._housekeeping.stats(
            await self.engine.stats(), self._shelf, self._num_running
        )

    # The life of the manager.

    def start(self) -> None:
        """Begin to write snapshots of idle sessions and to delete expired ones."""
        self._housekeeping.start()
        if self._table.ownership is not None:
            self._table.ownership.start()

    async def close(self, *, drain_seconds: float = 0.0) -> None:
        """Let running turns end, write snapshots, close the engine and the store."""
        await self._housekeeping.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(drain_seconds or None):
                while self._num_running and drain_seconds:
                    await asyncio.sleep(0.05)
        if self._table.ownership is not None:
            await self._table.ownership.stop()
        await self._residency.finish_snapshots()
        await self._residency.snapshot_idle(0.0)
        await self.engine.close()
        self.store.close()
