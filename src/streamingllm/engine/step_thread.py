"""The thread that owns an engine: commands apply between its steps."""

from __future__ import annotations

import atexit
import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from streamingllm.engine.engine import Engine
from streamingllm.engine.outputs import StepOutput
from streamingllm.errors import InputError

_log = logging.getLogger("streamingllm")
T = TypeVar("T")
Command = tuple[Callable[[], Any], "Future[Any]"]


class StepThread:
    """Step an engine while it has work, and run the commands of other threads in between.

    Args:
        engine: nothing else may call it from here on.
        deliver: called in the thread with the outputs of each step.
    """

    def __init__(self, engine: Engine, deliver: Callable[[Sequence[StepOutput]], None]) -> None:
        self._engine = engine
        self._deliver = deliver
        self._commands: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._is_closing = False
        self._thread = threading.Thread(target=self._run, name="streamingllm-step", daemon=True)
        # A daemon that is still stepping when the interpreter ends would crash it.
        atexit.register(self.close)
        self._thread.start()

    def post(self, command: Callable[[], T]) -> Future[T]:
        """Run a command between two steps; return a future of its result.

        Raises:
            InputError: the thread was closed.
        """
        future: Future[T] = Future()
        with self._lock:
            if self._is_closing:
                raise InputError("engine is closed; make a new one")
            self._commands.put((command, future))
        return future

    def close(self) -> None:
        """Apply the commands so far, close the engine, deliver the last outputs, and wait."""
        with self._lock:
            if not self._is_closing:
                self._is_closing = True
                self._commands.put((_stop, Future()))
        self._thread.join()
        atexit.unregister(self.close)

    def _run(self) -> None:
        try:
            while self._apply_commands():
                if self._engine.has_work:
                    self._deliver(self._step())
        finally:
            with self._lock:
                self._is_closing = True
            self._refuse_commands()
            self._deliver(self._engine.close())

    def _step(self) -> Sequence[StepOutput]:
        try:
            return self._engine.step()
        except Exception as error:
            _log.exception("a step failed; its streams end")
            outputs = self._engine.fail_active(error)
            if not outputs:  # the next step would fail in the same way
                raise
            return outputs

    def _refuse_commands(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                _, future = self._commands.get_nowait()
                if future.set_running_or_notify_cancel():
                    future.set_exception(InputError("engine is closed; make a new one"))

    def _apply_commands(self) -> bool:
        """Run all commands; wait for one if there is no work. Tell whether to go on."""
        is_idle = not self._engine.has_work
        timeout = self._engine.seconds_to_deadline if is_idle else None
        try:
            command, future = self._commands.get(block=is_idle, timeout=timeout)
            while command is not _stop:
                _apply(command, future)
                command, future = self._commands.get_nowait()
        except queue.Empty:
            return True
        return False


def _apply(command: Callable[[], T], future: Future[T]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = command()
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(result)


def _stop() -> None:
    """Mark the end of the commands."""
