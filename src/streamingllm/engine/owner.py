"""Refuse calls of an engine from another thread than its own."""

from __future__ import annotations

import threading

from streamingllm.errors import InputError


class ThreadOwner:
    """Refuse calls of any thread other than the one that owns an engine.

    The first thread that steps becomes the owner; until then any thread may call.
    """

    def __init__(self) -> None:
        self._owner: threading.Thread | None = None
        self.is_closed = False

    def take(self) -> None:
        """Make the calling thread the owner, if there is none.

        Raises:
            InputError: the engine is closed, or another thread owns it.
        """
        self.check()
        self._owner = threading.current_thread()

    def check(self) -> None:
        """Check that the calling thread may use the engine.

        Raises:
            InputError: the engine is closed, or another thread owns it.
        """
        if self.is_closed:
            raise InputError("engine is closed; make a new one")
        caller = threading.current_thread()
        if self._owner is not None and caller is not self._owner:
            raise InputError(
                f"thread={caller.name!r} called an engine of thread {self._owner.name!r}; call it "
                "from there, or use AsyncEngine"
            )
