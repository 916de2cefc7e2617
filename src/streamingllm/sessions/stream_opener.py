"""Open the stream of a session again: from the host, from the disk, or from its token tail."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter

from streamingllm.engine import AsyncEngine, StreamState
from streamingllm.errors import InputError, SnapshotError
from streamingllm.sessions.host_tier import HostTier
from streamingllm.sessions.session import Session, StreamPlace
from streamingllm.sessions.session_settings import SessionSettings
from streamingllm.sessions.snapshot_shelf import SnapshotShelf

_WINDOWS_REPLAYED = 4
_log = logging.getLogger("streamingllm.sessions")


class StreamOpener:
    """Open streams; a snapshot that cannot be restored is discarded and its session replayed.

    Args:
        engine: opens them.
        shelf: snapshots on disk.
        host: states on the host.
        settings: the way to replay.
        moves: counts of moves between tiers, which this adds to.
        window_size: of a stream without a pinned prefix.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        shelf: SnapshotShelf,
        host: HostTier,
        settings: SessionSettings,
        moves: Counter[tuple[str, str]],
        *,
        window_size: int,
    ) -> None:
        self._engine = engine
        self._shelf = shelf
        self._host = host
        self._settings = settings
        self._moves = moves
        self._replay_tokens = settings.replay_tokens or _WINDOWS_REPLAYED * window_size

    async def open(self, session: Session) -> None:
        """Open a stream from the best state there is, and say where it stands in `session.place`.

        Raises:
            CapacityError: the engine is full.
        """
        if session.place.state is not None:
            await self._open_from_host(session)
            return
        if not await self._open_from_disk(session):
            await self._open_from_tail(session)

    async def _open_from_host(self, session: Session) -> None:
        place = session.place
        assert place.state is not None
        place.stream_id = await self._engine.open_stream(state=place.state)
        self._host.leave(session, place)
        self._moves["host", "device"] += 1

    async def _open_from_disk(self, session: Session) -> bool:
        began = time.perf_counter()
        snapshot = await self._shelf.get(session)
        if snapshot is None:
            return False
        try:
            state = await asyncio.to_thread(StreamState.from_bytes, snapshot.content)
            skipped = snapshot.num_tokens - state.num_seen_tokens - len(state.pending)
            if not 0 <= skipped <= snapshot.num_tokens <= len(session.token_log):
                raise SnapshotError(f"num_tokens={snapshot.num_tokens} of a snapshot do not fit")
            stream_id = await self._engine.open_stream(state=state)
        except (SnapshotError, InputError) as error:
            _log.warning("a snapshot cannot be restored (%s); its session is replayed", error)
            await self._shelf.discard(session)
            return False
        session.place = StreamPlace(
            stream_id=stream_id,
            num_streamed=snapshot.num_tokens,
            num_agreeing=snapshot.num_tokens,
            num_skipped=skipped,
            num_evicted=state.num_evicted_tokens,
        )
        self._moves["disk", "device"] += 1
        taken = 1000 * (time.perf_counter() - began)
        _log.info("a session of %d tokens was restored in %.1f ms", snapshot.num_tokens, taken)
        return True

    async def _open_from_tail(self, session: Session) -> None:
        """Open a stream with the pinned prefix; the rest of the log, or its tail, is to be fed."""
        pinned = session.num_pinned_tokens
        stream_id = await self._engine.open_stream(pinned=session.token_log[:pinned].tolist())
        skipped = 0
        if self._settings.restore == "tail":
            skipped = max(0, len(session.token_log) - pinned - self._replay_tokens)
        session.place = StreamPlace(
            stream_id=stream_id,
            num_streamed=pinned + skipped,
            num_agreeing=pinned + skipped,
            num_skipped=skipped,
        )
        if len(session.token_log) > pinned:
            self._moves["tail", "device"] += 1
