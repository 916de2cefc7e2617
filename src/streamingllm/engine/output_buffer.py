"""Step outputs of one stream on their way from the step thread to an event loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable

from streamingllm.engine.outputs import StepOutput


class OutputBuffer:
    """Hold the step outputs that a reader has not taken, and tell when there are too many.

    The step thread puts, one task takes. `put` never blocks. A full buffer asks its stream to be
    held, and a drained one asks for more.

    Args:
        num_samples: texts that end before the last output.
        max_outputs: outputs after which the stream is held.
        on_drained: called by the reader when a held stream may go on.
    """

    def __init__(
        self, num_samples: int, max_outputs: int, *, on_drained: Callable[[], None]
    ) -> None:
        self._num_unended = num_samples
        self._max_outputs = max_outputs
        self._on_drained = on_drained
        self._lock = threading.Lock()
        self._outputs: deque[StepOutput] = deque()
        self._reader: tuple[asyncio.AbstractEventLoop, asyncio.Future[None]] | None = None
        self._is_held = False

    @property
    def is_ended(self) -> bool:
        """Return whether the last output was put."""
        return self._num_unended == 0

    def put(self, output: StepOutput) -> bool:
        """Add an output and wake the reader; tell whether the stream is to be held."""
        with self._lock:
            self._outputs.append(output)
            self._num_unended -= output.finish_reason is not None
            self._wake()
            must_hold = len(self._outputs) >= self._max_outputs and not self._is_held
            self._is_held = self._is_held or must_hold
            return must_hold

    async def take(self) -> tuple[StepOutput, bool]:
        """Return the next output, in the order of steps, and whether it is the last."""
        loop = asyncio.get_running_loop()
        while True:
            with self._lock:
                if self._outputs:
                    output = self._outputs.popleft()
                    is_drained = self._is_held and len(self._outputs) <= self._max_outputs // 2
                    self._is_held = self._is_held and not is_drained
                    is_last = self.is_ended and not self._outputs
                    break
                future = loop.create_future()
                self._reader = (loop, future)
            await future
        if is_drained:
            self._on_drained()
        return output, is_last

    def _wake(self) -> None:
        if self._reader is None:
            return
        (loop, future), self._reader = self._reader, None
        # The loop of a reader may be closed; its stream is held when the buffer is full.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(_resolve, future)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
