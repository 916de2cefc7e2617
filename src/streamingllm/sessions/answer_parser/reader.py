"""Read an answer character by character, so that it does not matter how it is cut into pieces."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Generator, Iterable
from typing import TypeVar

from streamingllm.sessions.answer_parser.base import (
    AnswerPart,
    CallArguments,
    CallEnded,
    CallStarted,
    Reasoning,
    Text,
)

Result = TypeVar("Result")
Steps = Generator[None, str, Result]
"""A step of a parser: it stops where the next character is missing, and returns a result."""

MAX_HELD_CHARACTERS = 65_536


class MalformedError(Exception):
    """Signal that what is read is no call; a reader turns it into text."""


class AnswerReader:
    """Hand out characters, take back what was read in vain, and collect the parts.

    Args:
        names: of the functions that may be called.

    Attributes:
        is_at_start: whether no text has come since the beginning or the last call.
    """

    def __init__(self, names: Collection[str]) -> None:
        self.is_at_start = True
        self._names = names
        self._ahead: deque[str] = deque()
        self._attempt: list[str] | None = None
        self._has_ended = False
        self._num_calls = 0
        self._is_call_open = False
        self._spaces = ""
        self._drops_spaces = False
        self._parts: list[AnswerPart] = []

    # What is read.

    def next(self) -> Steps[str]:
        """Return the next character; "" after the last one."""
        if self._ahead:
            character = self._ahead.popleft()
        elif self._has_ended:
            return ""
        else:
            character = yield
            if not character:
                self._has_ended = True
                return ""
        if self._attempt is not None:
            self._attempt.append(character)
            if len(self._attempt) > MAX_HELD_CHARACTERS:
                raise MalformedError
        return character

    def put_back(self, text: str) -> None:
        """Make the last characters that were read the next ones."""
        self._ahead.extendleft(reversed(text))
        if self._attempt is not None and text:
            del self._attempt[-len(text) :]

    def next_after_spaces(self) -> Steps[str]:
        """Return the next character that is no white space; "" after the last one."""
        while (character := (yield from self.next())).isspace():
            pass
        return character

    def peek_after_spaces(self) -> Steps[str]:
        """Return the next character that is no white space, and read nothing."""
        read = ""
        while (character := (yield from self.next())).isspace():
            read += character
        self.put_back(read + character)
        return character

    def skip(self, text: str) -> Steps[None]:
        """Read a text if it comes next, after white space; otherwise read nothing."""
        read = ""
        while (character := (yield from self.next())).isspace():
            read += character
        self.put_back(character)
        if not (yield from self.has(text)):
            self.put_back(read)

    def has(self, text: str) -> Steps[bool]:
        """Read a text if it comes next; otherwise read nothing."""
        read = ""
        while len(read) < len(text):
            character = yield from self.next()
            read += character
            if not character or not text.startswith(read):
                self.put_back(read)
                return False
        return True

    def expect(self, text: str) -> Steps[None]:
        """Read a text that must come next, after white space."""
        character = yield from self.next_after_spaces()
        self.put_back(character)
        if not (yield from self.has(text)):
            raise MalformedError

    def until(self, ends: Iterable[str]) -> Steps[tuple[str, str]]:
        """Read up to the first of some texts; return what is before it, and it.

        Raises:
            MalformedError: none comes; what was read is put back.
        """
        read, ends = "", tuple(ends)
        while character := (yield from self.next()):
            read += character
            for end in ends:
                if read.endswith(end):
                    return read[: -len(end)], end
        self.put_back(read)
        raise MalformedError

    def rest(self) -> Steps[str]:
        """Read all that is left."""
        read = ""
        while character := (yield from self.next()):
            read += character
        return read

    def attempt(self, mark: str, steps: Steps[None]) -> Steps[bool]:
        """Read a call; return whether it was one.

        If it was none, the mark is text, and what follows the mark is read again.
        """
        self._attempt = []
        try:
            yield from steps
        except MalformedError:
            if self._is_call_open:
                self.end_call()
                return True
            read, self._attempt = "".join(self._attempt or ()), None
            self.put_back(read)
            self.text(mark)
            return False
        self._attempt = None
        return True

    # What is found.

    def text(self, text: str) -> None:
        """Add text; white space waits, because it is dropped before a call."""
        for character in text:
            if character.isspace():
                self._spaces += "" if self._drops_spaces else character
                continue
            self._emit(Text(self._spaces + character))
            self._spaces, self._drops_spaces, self.is_at_start = "", False, False

    def reasoning(self, text: str) -> None:
        """Add reasoning; white space around it is dropped."""
        for character in text:
            if character.isspace():
                self._spaces += "" if self._drops_spaces else character
                continue
            self._emit(Reasoning(self._spaces + character))
            self._spaces, self._drops_spaces = "", False

    def turn_to(self) -> None:
        """Drop the white space between reasoning and text."""
        self._spaces, self._drops_spaces = "", True

    def start_call(self, name: str) -> None:
        """Begin a call; from now on nothing is taken back.

        Raises:
            MalformedError: there is no such function.
        """
        if name not in self._names:
            raise MalformedError
        self._attempt, self._spaces, self._drops_spaces = None, "", False
        self._is_call_open = self.is_at_start = True
        self._emit(CallStarted(self._num_calls, name))

    def arguments(self, text: str) -> None:
        """Add JSON text of the arguments."""
        self._emit(CallArguments(self._num_calls, text))

    def end_call(self) -> None:
        """End the call, if one is open."""
        if self._is_call_open:
            self._emit(CallEnded(self._num_calls))
            self._num_calls += 1
            self._is_call_open = False

    def whole_call(self, name: str, arguments: str) -> None:
        """Add a call whose arguments are complete."""
        self.start_call(name)
        self.arguments(arguments)
        self.end_call()

    def end(self) -> None:
        """Add the white space at the end, unless a call or reasoning is before it."""
        if self._spaces and not self._num_calls:
            self._emit(Text(self._spaces))
        self._spaces = ""

    def take_parts(self) -> list[AnswerPart]:
        """Return the parts that were found since the last time."""
        parts, self._parts = self._parts, []
        return parts

    def _emit(self, part: AnswerPart) -> None:
        last = self._parts[-1] if self._parts else None
        if isinstance(part, Text) and isinstance(last, Text):
            self._parts[-1] = Text(last.text + part.text)
        elif isinstance(part, Reasoning) and isinstance(last, Reasoning):
            self._parts[-1] = Reasoning(last.text + part.text)
        elif isinstance(part, CallArguments) and isinstance(last, CallArguments):
            self._parts[-1] = CallArguments(part.number, last.text + part.text)
        else:
            self._parts.append(part)
