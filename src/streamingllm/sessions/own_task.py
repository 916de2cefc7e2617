"""Iterate in a task of one's own, so that whoever goes away cancels it once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")
MAX_BUFFERED_ITEMS = 16
logger = logging.getLogger(__name__)
_closing: set[asyncio.Task[None]] = set()  # the event loop holds tasks by weak references only


@dataclass(frozen=True)
class _Item(Generic[T]):
    value: T


@dataclass(frozen=True)
class _End:
    error: BaseException | None = None


async def in_own_task(items: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
    """Yield what a generator yields; closing this one cancels that one, which cleans up by itself.

    Web frameworks cancel a request at each of its awaits until it ends. A turn that is taken back
    awaits a few times, so it would be cut off while it holds its session. Closing waits for the end
    of the clean-up, unless it is cancelled itself.
    """
    queue: asyncio.Queue[_Item[T] | _End] = asyncio.Queue(MAX_BUFFERED_ITEMS)
    task = asyncio.create_task(_fill(queue, items))
    try:
        while isinstance(item := await queue.get(), _Item):
            yield item.value
        if item.error is not None:
            raise item.error
    finally:
        if not task.done():
            _closing.add(task)
            task.add_done_callback(_closed)
            task.cancel()
            await asyncio.wait((task,))


async def _fill(queue: asyncio.Queue[_Item[T] | _End], items: AsyncGenerator[T, None]) -> None:
    end = _End()
    try:
        async with contextlib.aclosing(items):
            async for value in items:
                await queue.put(_Item(value))
    except asyncio.CancelledError:
        raise
    except Exception as error:
        end = _End(error)
    await queue.put(end)


def _closed(task: asyncio.Task[None]) -> None:
    _closing.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("A turn that was cancelled did not end well.", exc_info=error)
