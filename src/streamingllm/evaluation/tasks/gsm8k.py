"""Score GSM8K under a window: gold answers by likelihood, and answers of the model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from streamingllm.checks import check_integer
from streamingllm.errors import ConfigError
from streamingllm.evaluation.jsonl import read_jsonl
from streamingllm.evaluation.scoring import answer_greedily, feed_scored
from streamingllm.evaluation.tasks.base import Job, Part, Task
from streamingllm.stream import Stream

if TYPE_CHECKING:
    from torch import Tensor

    from streamingllm.evaluation.caches import CacheChoice
    from streamingllm.models import LanguageModel

_NOTES = re.compile(r"<<.*?>>")
_SPLIT = "#### "
_LOOP_WORDS = 8


def without_notes(answer: str) -> str:
    """Return an answer without its calculator notes."""
    return _NOTES.sub("", answer)


def number_of(text: str) -> str | None:
    """Return the number after `####`, else the last number; without commas."""
    marked = re.search(r"####\s*\$?(-?[\d,]*\.?\d+)", text)
    found = [marked[1]] if marked else re.findall(r"-?\d[\d,]*\.?\d*", text)
    return found[-1].replace(",", "").rstrip(".") if found else None


def is_loop(text: str) -> bool:
    """Tell whether the last eight words of a text stood there before."""
    words = text.split()
    last = words[-_LOOP_WORDS:]
    earlier = (words[i : i + _LOOP_WORDS] for i in range(len(words) - _LOOP_WORDS))
    return len(last) == _LOOP_WORDS and any(each == last for each in earlier)


class Gsm8kTask(Task):
    """Score gold answers token by token, the number after its chain apart from the chain.

    Args:
        data: JSON lines with question and answer, as GSM8K's.
        max_questions: questions read; None reads all.
        shots: worked examples before each question.
        examples: JSON lines to take them from; needed with `shots`.
        pins_question: keep the question for ever next to the sinks, so that a chain longer than
            the window still sees it.
        max_new_tokens: bound on the model's own chain; 0 leaves generation out.

    Source: Cobbe et al., "Training verifiers to solve math word problems" (arXiv 2110.14168).
    """

    name: ClassVar[str] = "gsm8k"
    sample_noun: ClassVar[str] = "question"
    part_noun: ClassVar[str] = "question"
    primary: ClassVar[str] = "chain_nll"

    def __init__(
        self,
        data: Path,
        max_questions: int | None = None,
        *,
        shots: int = 0,
        examples: Path | None = None,
        pins_question: bool = False,
        max_new_tokens: int = 0,
    ) -> None:
        if max_questions is not None:
            check_integer("max_questions", max_questions, 1)
        check_integer("shots", shots, 0)
        check_integer("max_new_tokens", max_new_tokens, 0)
        if shots and examples is None:
            raise ConfigError(f"shots={shots} needs examples; give a file of JSON lines")
        fields = ("question", "answer")
        self.data = data
        self.rows = read_jsonl(data, fields, max_questions)
        self.examples = read_jsonl(examples, fields, shots) if examples and shots else []
        if len(self.examples) < shots:
            raise ConfigError(f"shots={shots} exceeds the {len(self.examples)} examples; use fewer")
        self.pins_question = pins_question
        self.max_new_tokens = max_new_tokens

    @property
    def num_samples(self) -> int:
        """Questions."""
        return len(self.rows)

    def num_parts(self, sample: int) -> int:
        """Return 1."""
        return 1

    def settings(self) -> dict[str, Any]:
        """Return data and switches."""
        return {
            "data": self.data.name,
            "questions": self.num_samples,
            "shots": len(self.examples),
            "pins_question": self.pins_question,
            "max_new_tokens": self.max_new_tokens,
        }

    def run(self, job: Job) -> None:
        """Score one question."""
        lm, row = job.lm, self.rows[job.sample]
        before = "".join(f"{_asked(e)} {without_notes(e['answer'])}\n\n" for e in self.examples)
        head = [lm.encode(before)] if before else []
        (question,) = _encoded(lm, _asked(row)) if before else [lm.encode(_asked(row))]
        start = sum(len(ids) for ids in head)
        stream = self._stream(lm, job.cache, start, len(question))
        stream.feed(torch.cat([*head, question]), logits="last")
        chain, _, number = without_notes(row["answer"]).rpartition(_SPLIT)
        own = self._own_answer(stream, lm, number_of(number)) if self.max_new_tokens else {}
        nll = [feed_scored(stream, ids) for ids in _encoded(lm, f" {chain}{_SPLIT}", number)]
        totals = {
            "chain_nll": (float(nll[0].sum()), float(len(nll[0]))),
            "number_nll": (float(nll[1].sum()), float(len(nll[1]))),
            **{name: total for name, total in own.items() if name != "answer"},
        }
        facts = {
            "question_tokens": len(question),
            "chain_tokens": len(nll[0]),
            "answer": own.get("answer"),
        }
        job.add(Part(totals, facts))

    def _stream(
        self, lm: LanguageModel, cache: CacheChoice, start: int, num_question_tokens: int
    ) -> Stream:
        config = cache.config
        if not self.pins_question:
            return Stream(lm.model, config)
        if config.strategy != "sinks":
            raise ConfigError(f"cache={cache.label!r} cannot pin a question; give N+M")
        sinks = {*range(config.num_sink_tokens), *range(start, start + num_question_tokens)}
        pinned = replace(config, num_sink_tokens=len(sinks), sink_positions=tuple(sorted(sinks)))
        return Stream(lm.model, pinned)

    def _own_answer(self, stream: Stream, lm: LanguageModel, gold: str | None) -> dict[str, Any]:
        def ends(text: str) -> bool:
            return "\n\n" in text.strip("\n") or re.search(r"####.*\n", text) is not None

        answer = answer_greedily(stream, lm, self.max_new_tokens, ends)
        return {
            "exact_match": (float(number_of(answer.text) == gold), 1.0),
            "answer_tokens": (float(len(answer.token_ids)), 1.0),
            "loops": (float(is_loop(answer.text)), 1.0),
            "answer": answer.text,
        }


def _asked(row: Any) -> str:
    return f"Question: {row['question']}\nAnswer:"


def _encoded(lm: LanguageModel, *texts: str) -> Sequence[Tensor]:
    return [lm.encode(text, add_special_tokens=False, is_continuation=True) for text in texts]
