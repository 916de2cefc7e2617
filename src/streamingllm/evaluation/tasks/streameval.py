"""StreamEval: a record of numbered lines, and questions about lines a fixed distance back."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from streamingllm.checks import check_choice, check_integer
from streamingllm.evaluation.chat_frame import ChatFrame
from streamingllm.evaluation.scoring import (
    answer_greedily,
    ends_line_or_bracket,
    first_bracketed_integer,
    first_line_of,
    last_integer,
    nll_of,
)
from streamingllm.evaluation.tasks.base import Job, Part, Task

if TYPE_CHECKING:
    from torch import Tensor

    from streamingllm.models import LanguageModel
    from streamingllm.stream import Stream

HEADER = "Below is a record of lines I want you to remember."
MAX_VALUE = 50_000
KEEPS = ("query", "answer")
SCORES = ("bracket", "last")
_MAX_ANSWER_TOKENS = 24


def record_line(number: int, value: int) -> str:
    """Return a line of the record, without its end."""
    return f"The REGISTER_CONTENT in line {number} is <{value}>"


def query_line(number: int) -> str:
    """Return the bare question about a line."""
    return f"Query: The REGISTER_CONTENT in line {number} is"


@dataclass(frozen=True)
class Query:
    """A question and the lines that come right before it.

    Args:
        first_line: number of the first line since the question before.
        last_line: number of the line right before the question.
        target_line: the line asked for.
    """

    first_line: int
    last_line: int
    target_line: int


def queries_of(num_queries: int, line_distance: int, lines_per_query: int) -> list[Query]:
    """Return the questions of a sample: after line `line_distance`, then every few lines."""
    lasts = [line_distance + i * lines_per_query for i in range(num_queries)]
    firsts = [0, *(last + 1 for last in lasts)]
    return [
        Query(first, last, last - line_distance) for first, last in zip(firsts, lasts, strict=False)
    ]


class StreamEvalTask(Task):
    """Ask for a number that stood a fixed distance back, again and again, in one stream.

    Args:
        num_samples: records, each of other numbers.
        num_queries: questions of a record; 500 in the paper's figure 8.
        line_distance: lines from the target to the question; 20 in figure 8.
        lines_per_query: lines between questions; 10 in figure 8.
        keep: `query` leaves only the question in the stream, as figure 8 shows it; `answer` leaves
            the model's own answer too.
        score: `bracket` takes the first integer after `<`, `last` the last integer (LongEval).
        template: `raw` or `chat`; the record is what a user says.
        seed: of the numbers.

    Source: Xiao et al. (arXiv 2309.17453), figure 8, section 4.3, appendix C. The code was never
    released. The paper leaves open what stays after a question, and how answers are scored.
    """

    name: ClassVar[str] = "streameval"
    sample_noun: ClassVar[str] = "record"
    part_noun: ClassVar[str] = "query"
    primary: ClassVar[str] = "accuracy"
    takes_fresh: ClassVar[bool] = True

    def __init__(
        self,
        num_samples: int = 1,
        num_queries: int = 100,
        line_distance: int = 20,
        *,
        lines_per_query: int = 10,
        keep: str = "query",
        score: str = "bracket",
        template: str = "raw",
        seed: int = 0,
    ) -> None:
        check_integer("samples", num_samples, 1)
        check_integer("queries", num_queries, 1)
        check_integer("line_distance", line_distance, 0)
        check_integer("lines_per_query", lines_per_query, 1)
        check_choice("keep", keep, KEEPS)
        check_choice("score", score, SCORES)
        self._num_samples = num_samples
        self.queries = queries_of(num_queries, line_distance, lines_per_query)
        self.line_distance = line_distance
        self.lines_per_query = lines_per_query
        self.keep = keep
        self.score = score
        self.template = template
        self.seed = seed

    @property
    def num_samples(self) -> int:
        """Records."""
        return self._num_samples

    def num_parts(self, sample: int) -> int:
        """Return how many questions a record has."""
        return len(self.queries)

    def settings(self) -> dict[str, Any]:
        """Return sizes, switches and seed."""
        return {
            "samples": self.num_samples,
            "queries": len(self.queries),
            "line_distance": self.line_distance,
            "lines_per_query": self.lines_per_query,
            "keep": self.keep,
            "score": self.score,
            "template": self.template,
            "seed": self.seed,
        }

    def values(self, sample: int) -> list[int]:
        """Return the number in each line of a record, 1 to 50,000."""
        numbers = random.Random(f"{self.seed}-{sample}")
        return [numbers.randint(1, MAX_VALUE) for _ in range(self.queries[-1].last_line + 1)]

    def run(self, job: Job) -> None:
        """Ask the questions that are left of a record."""
        _Record(self, job).run()

    def integer_of(self, answer: str) -> int | None:
        """Return the integer that an answer gives."""
        return (first_bracketed_integer if self.score == "bracket" else last_integer)(answer)


class _Record:
    """One record while it is read."""

    def __init__(self, task: StreamEvalTask, job: Job) -> None:
        self.task = task
        self.job = job
        self.lm: LanguageModel = job.lm
        self.values = task.values(job.sample)
        self.frame = ChatFrame.of(job.lm, task.template)
        self.opening = job.lm.encode(self.frame.opening + HEADER)
        # What has been read since, line by line; a question and what stays of its answer is one.
        self.pieces: list[Tensor] = []
        self.line_ends: list[int] = []  # tokens read once a line has ended
        self.num_tokens = len(self.opening)

    def run(self) -> None:
        num_done = len(self.job.parts)
        for number, query in enumerate(self.task.queries):
            new = self._read(query)
            if number < num_done:
                kept = self.job.parts[number].facts["kept_text"]
                self._note(self._encode(kept))
                continue
            stream = self._at_query(number, new)
            self._ask(stream, query)

    def _read(self, query: Query) -> list[Tensor]:
        """Note the lines since the question before, and the question; return their tokens."""
        first = len(self.pieces)
        for line in range(query.first_line, query.last_line + 1):
            self._note(self._encode("\n" + record_line(line, self.values[line])))
            self.line_ends.append(self.num_tokens)
        self._note(self._encode("\n" + query_line(query.target_line)))
        return self.pieces[first:]

    def _at_query(self, number: int, new: list[Tensor]) -> Stream:
        """Return a stream that has read everything up to the question."""
        if self.job.cache.is_fresh:
            stream = self.job.new_stream()
            stream.feed(torch.cat([self.opening, *self._pieces_that_fit()]), logits="last")
            return stream
        before = [self.opening] if number == 0 else []
        self.job.stream.feed(torch.cat([*before, *new]), logits="last")
        return self.job.stream

    def _pieces_that_fit(self) -> list[Tensor]:
        """Return the last pieces that fit into a fresh stream after the opening."""
        room = self.job.cache.config.window_size - len(self.opening)
        first = len(self.pieces)
        while first > 0 and room >= len(self.pieces[first - 1]):
            first -= 1
            room -= len(self.pieces[first])
        return self.pieces[first:]

    def _ask(self, stream: Stream, query: Query) -> None:
        task, value = self.task, self.values[query.target_line]
        asked = stream
        if self.frame.answering:
            asked = stream.fork()
            asked.feed(self._encode(self.frame.answering), logits="last")
        answer = answer_greedily(asked, self.lm, _MAX_ANSWER_TOKENS, ends_line_or_bracket)
        gold = self._encode(f" <{value}>")
        gold_nll = nll_of(asked, gold)  # before the answer is fed
        line_tokens = self.line_ends[query.target_line] - (
            self.line_ends[query.target_line - 1] if query.target_line else len(self.opening)
        )
        distance = self.num_tokens - self.line_ends[query.target_line]
        is_right = float(task.integer_of(answer.text) == value)
        is_visible = self._is_visible(distance + line_tokens)
        kept = f" {first_line_of(answer.text)}" if task.keep == "answer" else ""
        if kept and self.frame.answering:
            kept = self.frame.answering + kept.strip() + self.frame.reopening
        kept_ids = self._encode(kept)
        if kept and not self.job.cache.is_fresh:
            stream.feed(kept_ids, logits="last")
        facts = {
            "target_line": query.target_line,
            "value": value,
            "answer": answer.text,
            "distance_tokens": distance,
            "is_visible": is_visible,
            "num_seen_tokens": self.num_tokens,
            "kept_text": kept,
        }
        self._note(kept_ids)
        totals = {
            "accuracy": (is_right, 1.0),
            "accuracy_visible": (is_right * is_visible, float(is_visible)),
            "gold_nll": (gold_nll, float(len(gold))),
            "distance_tokens": (float(distance), 1.0),
        }
        self.job.add(Part(totals, facts))

    def _is_visible(self, num_tokens: int) -> bool:
        """Tell whether the last `num_tokens` tokens are all in the window."""
        config = self.job.cache.config
        if config.strategy in ("dense", "interpolation") and not self.job.cache.is_fresh:
            return True
        room = config.window_size
        return num_tokens <= (room - len(self.opening) if self.job.cache.is_fresh else room)

    def _note(self, ids: Tensor) -> None:
        self.pieces.append(ids)
        self.num_tokens += len(ids)

    def _encode(self, text: str) -> Tensor:
        if not text:
            return self.opening.new_empty(0)
        return self.lm.encode(text, add_special_tokens=False, is_continuation=True)
