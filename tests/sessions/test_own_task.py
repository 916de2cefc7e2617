"""A generator in a task of its own cleans up undisturbed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import anyio
import pytest

from streamingllm.sessions.own_task import in_own_task

pytestmark = pytest.mark.anyio


async def numbers(log: list[str], held: asyncio.Event) -> AsyncGenerator[int, None]:
    try:
        for number in range(100):
            yield number
            await asyncio.sleep(0)
    finally:
        for _ in range(5):
            await asyncio.sleep(0)
        log.append("cleaned up")
        held.set()


async def test_all_items_come_in_order() -> None:
    found = [number async for number in in_own_task(numbers([], asyncio.Event()))]
    assert found == list(range(100))


async def test_a_consumer_that_is_cancelled_again_and_again_disturbs_nothing() -> None:
    log: list[str] = []
    ended = asyncio.Event()

    async def consume() -> None:
        async for _ in in_own_task(numbers(log, ended)):
            await asyncio.sleep(3600)

    async with anyio.create_task_group() as group:
        group.start_soon(consume)
        await asyncio.sleep(0.01)
        group.cancel_scope.cancel()
    await ended.wait()
    assert log == ["cleaned up"]


async def test_an_error_reaches_the_consumer() -> None:
    async def failing() -> AsyncGenerator[int, None]:
        yield 1
        raise ValueError("wrong")

    found = []
    with pytest.raises(ValueError, match="wrong"):
        async for number in in_own_task(failing()):
            found.append(number)  # noqa: PERF401
    assert found == [1]
