"""The protocol of a format of tool calls, and the parser of answers that contain marks."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from streamingllm.sessions.answer_parser.base import AnswerPart
from streamingllm.sessions.answer_parser.reader import AnswerReader, Steps

Schemas = Mapping[str, Mapping[str, Any]]
"""The JSON schema of each function's arguments, by the function's name."""


class CallFormat(Protocol):
    """Read and write the calls of one family of models.

    Attributes:
        name: of the format.
        marks: texts that a call may begin with anywhere.
        starts: texts that a call may begin with where no text is before it.
        other_marks: texts within calls that may be special tokens.
        stop_marks: texts that end an answer.
    """

    name: str
    marks: tuple[str, ...]
    starts: tuple[str, ...]
    other_marks: tuple[str, ...]
    stop_marks: tuple[str, ...]

    def reason(self, template: str) -> str:
        """Return why a chat template speaks this format; "" if it does not."""
        ...

    def read(self, reader: AnswerReader, mark: str, schemas: Schemas) -> Steps[None]:
        """Read what follows a mark: one or more calls, or text."""
        ...

    def frame(self, template: str) -> CallFrame:
        """Return how calls are written by the models of a chat template."""
        ...


@dataclass(frozen=True)
class CallFrame:
    """Hold the texts around the calls of an answer.

    Args:
        opening: before the first call.
        before_name: of each call.
        before_arguments: between the name and the arguments.
        after_arguments: of each call.
        separator: between calls; None if an answer has one call at most.
        closing: after the last call.
    """

    before_name: str
    before_arguments: str
    after_arguments: str
    opening: str = ""
    separator: str | None = None
    closing: str = ""


@dataclass(frozen=True)
class ReasoningMarks:
    """Hold the texts around reasoning.

    Args:
        opening: before it.
        closing: after it.
        is_open: whether the prompt ends with the opening already.
        is_closed: whether the prompt ends with the closing already.
    """

    opening: str
    closing: str
    is_open: bool = False
    is_closed: bool = False


class MarkedParser:
    """Parse answers whose calls and reasoning stand between marks; an `AnswerParser`.

    Args:
        formats: of calls, the most likely first.
        schemas: of the functions that may be called.
        reasoning: marks around reasoning; None if there is none.
        reason: why these formats were chosen.
        shown_token_ids: special tokens whose text the parser reads.
        stop_token_ids: tokens that end an answer.
    """

    def __init__(
        self,
        formats: Sequence[CallFormat],
        schemas: Schemas,
        reasoning: ReasoningMarks | None,
        reason: str,
        *,
        shown_token_ids: Collection[int] = (),
        stop_token_ids: Collection[int] = (),
    ) -> None:
        self.format_name = formats[0].name if formats else "text"
        self.reason = reason
        self.shown_token_ids = shown_token_ids
        self.stop_token_ids = stop_token_ids
        self._schemas = schemas
        self._reasoning = reasoning
        self._formats = {mark: f for f in formats[::-1] for mark in (*f.starts, *f.marks)}
        opening = () if reasoning is None else (reasoning.opening,)
        self._marks = tuple(dict.fromkeys(mark for f in formats for mark in f.marks))
        self._starts = (*self._marks, *(mark for f in formats for mark in f.starts), *opening)
        self._reader = AnswerReader(schemas)
        self._steps = self._read_answer()
        next(self._steps)

    def feed(self, text: str) -> list[AnswerPart]:
        """Return the parts that are certain after more text."""
        for character in text:
            self._steps.send(character)
        return self._reader.take_parts()

    def finish(self) -> list[AnswerPart]:
        """Return the parts that were held back: the answer has ended."""
        next(self._steps, None)  # "no character" ends each step
        self._reader.end()
        return self._reader.take_parts()

    def _read_answer(self) -> Steps[None]:
        if self._reasoning is not None and self._reasoning.is_open:
            yield from self._read_reasoning(self._reasoning)
        while mark := (yield from self._read_text()):
            if self._reasoning is not None and mark == self._reasoning.opening:
                yield from self._read_reasoning(self._reasoning)
            else:
                yield from self._formats[mark].read(self._reader, mark, self._schemas)

    def _read_text(self) -> Steps[str]:
        """Read text up to a mark; return the mark, or "" after the last character."""
        reader, held = self._reader, ""
        while character := (yield from reader.next()):
            held += character
            while held:
                marks = self._starts if reader.is_at_start else self._marks
                if held in marks:
                    return held
                if any(mark.startswith(held) for mark in marks):
                    break
                reader.text(held[0])
                held = held[1:]
        reader.text(held)
        return ""

    def _read_reasoning(self, marks: ReasoningMarks) -> Steps[None]:
        reader, held = self._reader, ""
        reader.turn_to()
        while character := (yield from reader.next()):
            held += character
            if held == marks.closing:
                break
            while held and not marks.closing.startswith(held):
                reader.reasoning(held[0])
                held = held[1:]
        else:
            reader.reasoning(held)
        reader.turn_to()
