"""Tiers of sessions: a slot of the device, the host, the disk, and the token tail."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter, OrderedDict
from dataclasses import replace

from streamingllm.engine import AsyncEngine, StreamState
from streamingllm.errors import InputError, RewindError
from streamingllm.sessions.host_tier import HostTier
from streamingllm.sessions.session import Session, Tier
from streamingllm.sessions.session_settings import SessionSettings
from streamingllm.sessions.slot_queue import SlotQueue
from streamingllm.sessions.snapshot_shelf import SnapshotShelf
from streamingllm.sessions.stream_opener import StreamOpener

_log = logging.getLogger("streamingllm.sessions")


class ResidencyPolicy:
    """Bring sessions to the device for a turn, and idle ones away from it, least recent first.

    A session that loses its slot moves to the host, from there to the disk, from there to its token
    tail. Each tier has a hard bound, and room is reserved before it is used. All methods run in one
    event loop.

    Args:
        engine: whose slots the running sessions have.
        shelf: snapshots on disk.
        settings: bounds and the way to replay.
        num_slots: of the engine.
        bytes_per_stream: bytes of the state of one stream, at most.
        window_size: of a stream without a pinned prefix.

    Attributes:
        moves: counts of moves between tiers, by (from, to).
        slots: of the engine, lent to sessions.
        device: sessions that have one, the one that was used least recently first.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        shelf: SnapshotShelf,
        settings: SessionSettings,
        *,
        num_slots: int,
        bytes_per_stream: int,
        window_size: int,
    ) -> None:
        self._engine = engine
        self._shelf = shelf
        self._settings = settings
        self._bytes_per_stream = bytes_per_stream
        self._host = HostTier(settings.host_bytes)
        self.moves: Counter[tuple[str, str]] = Counter()
        self._opener = StreamOpener(
            engine, shelf, self._host, settings, self.moves, window_size=window_size
        )
        self.slots = SlotQueue(num_slots, settings.max_waiting, self._free_slot)
        self.device: OrderedDict[str, Session] = OrderedDict()
        self._writing: set[asyncio.Task[None]] = set()

    @property
    def num_on_host(self) -> int:
        """Return how many sessions are on the host."""
        return len(self._host.sessions)

    @property
    def host_bytes(self) -> int:
        """Bytes of the states on the host, reserved ones included."""
        return self._host.nbytes

    def tier(self, session: Session) -> Tier:
        """Return where the stream of a session is."""
        if session.place.stream_id is not None:
            return "device"
        if session.place.state is not None:
            return "host"
        return "tail" if self._shelf.num_tokens(session.key) is None else "disk"

    # To the device.

    async def bring(self, session: Session) -> str:
        """Give a session's stream a slot; return its id in the engine.

        The stream then agrees with the first `place.num_streamed` tokens of the log; the caller
        feeds the others. The session's lock is held.

        Raises:
            CapacityError: too many turns wait for a slot.
        """
        place = session.place
        if place.stream_id is None:
            await self.slots.acquire(session.owner)
            try:
                await self._opener.open(session)
            except BaseException:
                self.slots.release()
                await self.slots.serve()
                raise
        self.device[session.key] = session
        self.device.move_to_end(session.key)
        # Whatever holds an idle session for a moment keeps its slot from the turns that wait.
        session.lock.on_free = self.slots.serve_soon
        await self._take_back(session)
        assert session.place.stream_id is not None
        return session.place.stream_id

    async def drop(self, session: Session, *, wipe: bool = False) -> None:
        """Forget a session's stream wherever it is, except on disk; its log is what is left.

        Args:
            session: whose stream it is.
            wipe: set its entries on the device to zero.
        """
        place = session.leave_stream()
        if self.device.pop(session.key, None) is not None:
            if place.stream_id is not None:
                with contextlib.suppress(InputError):  # it failed, and the engine has closed it
                    await self._engine.close_stream(place.stream_id, wipe=wipe)
            self.slots.release()
            await self.slots.serve()
        self._host.leave(session, place)

    async def rest(self, session: Session) -> None:
        """Let a session be idle: its slot may now go to who waits."""
        session.used_seconds = time.monotonic()
        if session.key in self.device:
            self.device.move_to_end(session.key)
        await self.slots.serve()

    async def _take_back(self, session: Session) -> None:
        """Rewind the stream to what still stands in the log, or replay."""
        place = session.place
        surplus = place.num_streamed - place.num_agreeing
        if not surplus:
            return
        assert place.stream_id is not None
        try:
            if place.num_agreeing < session.num_pinned_tokens + place.num_skipped:
                raise RewindError("the tokens before were not replayed")
            await self._engine.rewind(place.stream_id, surplus)
            place.num_streamed = place.num_agreeing
        except RewindError:
            await self._engine.close_stream(place.stream_id)
            session.leave_stream()
            self.moves["device", "tail"] += 1
            await self._opener.open(session)
        else:
            usage = await self._engine.usage(place.stream_id)
            place.num_evicted = usage.num_evicted_tokens

    # Away from the device.

    async def _free_slot(self) -> bool:
        """Move the idle session that was used least recently; tell whether there was one."""
        for session in list(self.device.values()):
            if not session.lock.is_free or session.place.stream_id is None:
                continue
            async with session.lock:
                await self._move_from_device(session)
            return True
        return False

    async def _move_from_device(self, session: Session) -> None:
        place = session.place
        assert place.stream_id is not None
        has_room = await self._reserve_host()
        try:
            state = await self._engine.export_state(place.stream_id)
            await self._engine.close_stream(place.stream_id)
        except InputError:  # its stream has failed; the log is what is left
            state = None
        finally:
            if has_room:
                self._host.nbytes -= self._bytes_per_stream
        place.stream_id = None
        self.device.pop(session.key, None)
        self.slots.release()
        if state is None:
            session.leave_stream()
        elif has_room and self._host.put(session, place, state):
            self.moves["device", "host"] += 1
        else:
            await self._shelve(session, state, "device")

    async def _reserve_host(self) -> bool:
        """Reserve the bytes of one state on the host; tell whether there is room."""
        for session in list(self._host.sessions.values()):
            if self._host.has_room(self._bytes_per_stream):
                break
            if session.lock.is_free:
                async with session.lock:
                    await self.move_to_disk(session)
        has_room = self._host.has_room(self._bytes_per_stream)
        if has_room:
            self._host.nbytes += self._bytes_per_stream
        return has_room

    async def move_to_disk(self, session: Session) -> None:
        """Move a session from the host to the disk; to its tail if there is no room."""
        state = session.place.state
        if state is not None:
            self._host.leave(session, session.place)
            await self._shelve(session, state, "host")

    async def _shelve(self, session: Session, state: StreamState, tier: str) -> None:
        place = session.leave_stream()
        is_kept = place.num_agreeing == place.num_streamed and await self._shelf.put(
            session, place.num_streamed, state
        )
        self.moves[tier, "disk" if is_kept else "tail"] += 1

    async def branch(self, parent: Session, child: Session) -> None:
        """Give a branch a copy of its parent's stream, if the host has room; both are locked."""
        place = parent.place
        if place.stream_id is None and place.state is None:
            return
        if not await self._reserve_host():
            return
        state = place.state
        try:
            if state is None and place.stream_id is not None:
                state = await self._engine.export_state(place.stream_id)
        except InputError:  # its stream has failed; the log is what is left
            state = None
        finally:
            self._host.nbytes -= self._bytes_per_stream
        if state is not None:
            copy = replace(place, stream_id=None, state=None)
            if self._host.put(child, copy, state):
                copy.agree_up_to(len(child.token_log))
                child.place = copy

    # Snapshots of idle sessions.

    async def snapshot(self, session: Session) -> None:
        """Write a snapshot of an idle session on the device or the host; its lock is held."""
        place = session.place
        if place.num_agreeing != place.num_streamed or not session.is_stored:
            return
        if self._shelf.num_tokens(session.key) == place.num_streamed:
            return
        state = place.state
        if state is None and place.stream_id is not None:
            state = await self._engine.export_state(place.stream_id)
        if state is not None:
            await self._shelf.put(session, place.num_streamed, state)

    def snapshot_soon(self, session: Session) -> None:
        """Write a snapshot of a session between its turns, in a task of its own."""
        task = asyncio.create_task(self._snapshot_between_turns(session))
        self._writing.add(task)  # the event loop holds tasks by weak references only
        task.add_done_callback(self._writing.discard)

    async def finish_snapshots(self) -> None:
        """Wait for the snapshots that are being written."""
        if self._writing:
            await asyncio.wait(self._writing)

    async def _snapshot_between_turns(self, session: Session) -> None:
        async with session.lock:
            if not session.is_deleted:
                await self.snapshot(session)

    async def snapshot_idle(self, idle_seconds: float) -> None:
        """Write snapshots of the sessions that have been idle for so long."""
        before = time.monotonic() - idle_seconds
        for session in [*self.device.values(), *self._host.sessions.values()]:
            if session.used_seconds <= before and session.lock.is_free:
                async with session.lock:
                    await self.snapshot(session)
