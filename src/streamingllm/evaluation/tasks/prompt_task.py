"""Base of tasks with one question after one long prompt."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from streamingllm.evaluation.chat_frame import ChatFrame
from streamingllm.evaluation.scoring import answer_greedily, ends_line, last_integer, nll_of
from streamingllm.evaluation.tasks.base import Job, Part, Task

_MAX_ANSWER_TOKENS = 32


@dataclass(frozen=True)
class Prompt:
    """A long prompt whose answer is a number.

    Args:
        text: the prompt.
        number: the right answer.
        lead: the answer up to its number.
        gold: the number after `lead`, whose likelihood is measured.
    """

    text: str
    number: int
    lead: str
    gold: str


class PromptTask(Task):
    """Ask one question after one prompt; the last integer of the answer counts, as in LongEval."""

    part_noun: ClassVar[str] = "prompt"
    sample_noun: ClassVar[str] = "prompt"
    primary: ClassVar[str] = "accuracy"
    template: str

    @abstractmethod
    def prompt(self, sample: int) -> Prompt:
        """Return the prompt of a sample."""

    def num_parts(self, sample: int) -> int:
        """Return 1."""
        return 1

    def run(self, job: Job) -> None:
        """Feed the prompt and score the answer."""
        lm, prompt = job.lm, self.prompt(job.sample)
        frame = ChatFrame.of(lm, self.template)
        job.stream.feed(lm.encode(frame.opening + prompt.text + frame.answering), logits="last")
        answer = answer_greedily(job.stream, lm, _MAX_ANSWER_TOKENS, ends_line)
        led = job.stream.fork()
        if prompt.lead:
            lead = lm.encode(prompt.lead, add_special_tokens=False, is_continuation=True)
            led.feed(lead, logits="last")
        gold = lm.encode(prompt.gold, add_special_tokens=False, is_continuation=True)
        totals = {
            "accuracy": (float(last_integer(answer.text) == prompt.number), 1.0),
            "gold_nll": (nll_of(led, gold), float(len(gold))),
        }
        facts: dict[str, Any] = {
            "answer": answer.text,
            "number": prompt.number,
            "num_seen_tokens": job.stream.num_seen_tokens,
        }
        job.add(Part(totals, facts))
