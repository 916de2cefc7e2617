"""A lock that tells whether acquiring it would wait."""

from __future__ import annotations

import asyncio

import pytest

from streamingllm.sessions.session_lock import SessionLock

pytestmark = pytest.mark.anyio


async def test_it_is_free_only_while_nobody_holds_it_or_waits() -> None:
    lock = SessionLock()
    assert lock.is_free
    await lock.acquire()
    waiting = asyncio.create_task(lock.acquire())
    await asyncio.sleep(0)
    lock.release()
    # Nobody holds it for a moment, but whoever waits comes first.
    assert (lock.locked(), lock.is_free) == (False, False)
    await waiting
    lock.release()
    assert lock.is_free


async def test_who_stops_waiting_does_not_count() -> None:
    lock = SessionLock()
    async with lock:
        waiting = asyncio.create_task(lock.acquire())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert lock.is_free


async def test_who_lets_it_go_last_says_so() -> None:
    lock, said = SessionLock(), []
    lock.on_free = lambda: said.append(lock.is_free)
    async with lock:
        waiting = asyncio.create_task(lock.acquire())
        await asyncio.sleep(0)
    assert said == []
    await waiting
    lock.release()
    assert said == [True]
