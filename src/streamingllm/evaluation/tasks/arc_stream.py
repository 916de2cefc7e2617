"""Read ARC as a stream: all pairs of question and answer one after the other."""

from __future__ import annotations

import string
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from streamingllm.checks import check_choice, check_integer
from streamingllm.errors import InputError
from streamingllm.evaluation.jsonl import read_jsonl
from streamingllm.evaluation.scoring import answer_greedily, ends_line, first_line_of, nll_of
from streamingllm.evaluation.tasks.base import Job, Part, Task

if TYPE_CHECKING:
    from streamingllm.models import LanguageModel
    from streamingllm.stream import Stream

ANSWERS = ("text", "letter")
_MAX_ANSWER_TOKENS = 48


class ArcStreamTask(Task):
    """Feed question and gold answer after one another, and score each answer before it is fed.

    The first pair opens the stream and is not scored. Under a `fresh` cache each question follows
    the first pair alone, which is the one-shot baseline.

    Args:
        data: JSON lines with query, choices and gold (an index).
        max_questions: questions read of the file; None reads all.
        answer: `text` or `letter` of the right option.
        lists_options: whether the options stand below the question.

    Source: Xiao et al. (arXiv 2309.17453), section 4.2, table 5. The format was not published;
    options, letters and blank lines are ours.
    """

    name: ClassVar[str] = "arc-stream"
    sample_noun: ClassVar[str] = "stream"
    part_noun: ClassVar[str] = "question"
    primary: ClassVar[str] = "exact_match"
    takes_fresh: ClassVar[bool] = True

    def __init__(
        self,
        data: Path,
        max_questions: int | None = None,
        *,
        answer: str = "text",
        lists_options: bool = True,
    ) -> None:
        check_choice("answer", answer, ANSWERS)
        if max_questions is not None:
            check_integer("max_questions", max_questions, 1)
        if answer == "letter" and not lists_options:
            raise InputError("answer='letter' needs the options in the text; list them")
        self.data = data
        rows = None if max_questions is None else max_questions + 1
        self.opening, *self.questions = read_jsonl(data, ("query", "choices", "gold"), rows)
        if not self.questions:
            raise InputError(f"data={str(data)!r} has one question; give at least two")
        self.answer = answer
        self.lists_options = lists_options

    @property
    def num_samples(self) -> int:
        """Return 1, because all questions are one stream."""
        return 1

    def num_parts(self, sample: int) -> int:
        """Return how many questions are scored."""
        return len(self.questions)

    def settings(self) -> dict[str, Any]:
        """Return data and form."""
        return {
            "data": self.data.name,
            "questions": len(self.questions),
            "answer": self.answer,
            "lists_options": self.lists_options,
        }

    def prompt_of(self, row: Any) -> str:
        """Return a question up to its answer."""
        lines = [row["query"]]
        if self.lists_options:
            lines += [
                f"{a}. {b}" for a, b in zip(string.ascii_uppercase, row["choices"], strict=False)
            ]
        return "\n".join([*lines, "Answer:"])

    def options_of(self, row: Any) -> Sequence[str]:
        """Return the answer that each option would be."""
        if self.answer == "letter":
            return string.ascii_uppercase[: len(row["choices"])]
        return [str(choice) for choice in row["choices"]]

    def run(self, job: Job) -> None:
        """Score the questions that are left."""
        lm = job.lm
        opening = self.prompt_of(self.opening) + self._gold(self.opening)
        for number in range(len(job.parts), len(self.questions)):
            row = self.questions[number]
            stream = job.new_stream() if job.cache.is_fresh else job.stream
            if not stream.num_seen_tokens:
                stream.feed(lm.encode(opening), logits="last")
            elif number:
                _feed(stream, lm, self._gold(self.questions[number - 1]))
            _feed(stream, lm, self.prompt_of(row))
            job.add(self._score(stream, lm, row))

    def _gold(self, row: Any) -> str:
        return f" {self.options_of(row)[row['gold']]}\n\n"

    def _score(self, stream: Stream, lm: LanguageModel, row: Any) -> Part:
        options, gold = self.options_of(row), row["gold"]
        answer = first_line_of(answer_greedily(stream, lm, _MAX_ANSWER_TOKENS, ends_line).text)
        ids = [
            lm.encode(f" {option}", add_special_tokens=False, is_continuation=True)
            for option in options
        ]
        nll = [nll_of(stream, each) for each in ids]
        per_byte = [each / len(text.encode()) for each, text in zip(nll, options, strict=True)]
        totals = {
            "exact_match": (float(answer == options[gold].strip()), 1.0),
            "option_accuracy": (float(nll.index(min(nll)) == gold), 1.0),
            "option_accuracy_per_byte": (float(per_byte.index(min(per_byte)) == gold), 1.0),
            "gold_nll": (nll[gold], float(len(ids[gold]))),
        }
        facts = {"answer": answer, "gold": gold, "num_seen_tokens": stream.num_seen_tokens}
        return Part(totals, facts)


def _feed(stream: Stream, lm: LanguageModel, text: str) -> None:
    ids = lm.encode(text, add_special_tokens=False, is_continuation=True)
    stream.feed(ids, logits="last")
