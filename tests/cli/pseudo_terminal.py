"""A pseudo-terminal, for programs that ask whether they have one."""

from __future__ import annotations

import os
import pty


class Terminal:
    """The screen and the keyboard of a program."""

    def __init__(self) -> None:
        self._ours, self.theirs = pty.openpty()
        self._screen = ""

    def type(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def wait_for(self, text: str) -> str:
        """Return what is shown up to `text` and with it."""
        while text not in self._screen:
            self._screen += os.read(self._ours, 1000).decode(errors="replace")
        shown, found, self._screen = self._screen.partition(text)
        return shown + found

    def wait_for_anything(self) -> None:
        self._screen = self._screen or os.read(self._ours, 1000).decode(errors="replace")
