"""One thread steps, others come between two steps."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from streamingllm.errors import InputError

_YIELD_SECONDS = 1e-4


class Turns:
    """A lock that the thread which steps leaves to others first.

    A plain lock would go back to the stepping thread again and again before any other wakes up.

    Attributes:
        is_closed: set, with the lock held, by whoever was last; all others are refused.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._guard = threading.Lock()
        self._num_waiting = 0
        self._changed = threading.Event()
        self.is_closed = False

    @contextmanager
    def step(self) -> Iterator[None]:
        """Hold the lock for a step, after all who wait for it now."""
        while self._num_waiting:
            time.sleep(_YIELD_SECONDS)
        with self._lock:
            self._check_open()
            yield

    @contextmanager
    def between_steps(self) -> Iterator[None]:
        """Hold the lock as soon as the running step has ended, and say that something changed."""
        with self._guard:
            self._num_waiting += 1
        try:
            self._lock.acquire()
        finally:
            with self._guard:
                self._num_waiting -= 1
        try:
            self._check_open()
            yield
        finally:
            self._lock.release()
            self._changed.set()

    def wait_for_change(self, timeout_seconds: float | None) -> bool:
        """Sleep until something changes between steps, or has since this was called last."""
        happened = self._changed.wait(timeout_seconds)
        self._changed.clear()
        return happened

    def _check_open(self) -> None:
        if self.is_closed:
            raise InputError("this engine is closed: make a new one")
