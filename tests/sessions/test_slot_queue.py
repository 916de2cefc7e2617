"""Slots are lent fairly, none twice, none lost."""

from __future__ import annotations

import asyncio
import random

import pytest

from streamingllm.errors import CapacityError
from streamingllm.sessions.slot_queue import SlotQueue

pytestmark = pytest.mark.anyio


async def nothing_idle() -> bool:
    return False


async def test_owners_who_wait_take_turns() -> None:
    queue = SlotQueue(1, 10, nothing_idle)
    await queue.acquire("greedy")
    served: list[str] = []

    async def turn(owner: str, name: str) -> None:
        await queue.acquire(owner)
        served.append(name)
        queue.release()
        await queue.serve()

    tasks = []
    for owner, name in (("greedy", "g1"), ("greedy", "g2"), ("greedy", "g3"), ("modest", "m1")):
        tasks.append(asyncio.create_task(turn(owner, name)))
        await asyncio.sleep(0)
    queue.release()
    await queue.serve()
    await asyncio.gather(*tasks)
    assert served == ["g1", "m1", "g2", "g3"]


async def test_a_full_queue_refuses() -> None:
    queue = SlotQueue(1, 1, nothing_idle)
    await queue.acquire("a")
    waiting = asyncio.create_task(queue.acquire("a"))
    await asyncio.sleep(0)
    with pytest.raises(CapacityError, match="max_waiting=1"):
        await queue.acquire("b")
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert queue.num_waiting == 0


async def test_slots_of_idle_sessions_are_lent() -> None:
    idle = 2
    queue = SlotQueue(2, 10, nothing_idle)

    async def free_one() -> bool:
        nonlocal idle
        await asyncio.sleep(0)
        if not idle:
            return False
        idle -= 1
        queue.release()
        return True

    queue = SlotQueue(2, 10, free_one)
    await queue.acquire("a")
    await queue.acquire("a")
    await asyncio.gather(queue.acquire("a"), queue.acquire("b"))
    assert (idle, queue.num_free, queue.num_waiting) == (0, 0, 0)


@pytest.mark.parametrize("seed", range(20))
async def test_no_slot_is_lost_or_lent_twice(seed: int) -> None:
    rng = random.Random(seed)
    queue = SlotQueue(3, 100, nothing_idle)
    running = 0

    async def turn(owner: str, steps: int) -> None:
        nonlocal running
        await queue.acquire(owner)
        running += 1
        assert running <= 3
        try:
            for _ in range(steps):
                await asyncio.sleep(0)
        finally:
            running -= 1
            queue.release()
            await asyncio.shield(queue.serve())

    tasks = []
    for _ in range(60):
        tasks.append(asyncio.create_task(turn(rng.choice("abc"), rng.randrange(4))))
        if rng.random() < 0.5:
            await asyncio.sleep(0)
        if rng.random() < 0.3:
            rng.choice(tasks).cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (running, queue.num_free, queue.num_waiting) == (0, 3, 0)
