"""MT-bench's questions as one conversation without end."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from streamingllm.checks import check_choice, check_integer
from streamingllm.evaluation.chat_frame import TEMPLATES, ChatFrame
from streamingllm.evaluation.jsonl import read_jsonl
from streamingllm.evaluation.scoring import answer_greedily, feed_scored
from streamingllm.evaluation.tasks.base import Job, Part, Task
from streamingllm.evaluation.tasks.gsm8k import is_loop


class MtBenchTask(Task):
    """Ask question after question in one stream, in which the model's own answers stay.

    Nothing judges the answers. The scores say whether the model still speaks: the likelihood of
    the questions, answers that end by themselves, and answers that run in a loop.

    Args:
        data: JSON lines with turns, as MT-bench's.
        num_turns: messages to ask; the questions begin again when all have been asked.
        max_new_tokens: bound on an answer.
        template: `chat` or `raw`.

    Source: Xiao et al. (arXiv 2309.17453), the demonstration of its repository.
    """

    name: ClassVar[str] = "mt-bench"
    sample_noun: ClassVar[str] = "conversation"
    part_noun: ClassVar[str] = "turn"
    primary: ClassVar[str] = "question_nll"

    def __init__(
        self,
        data: Path,
        num_turns: int | None = None,
        *,
        max_new_tokens: int = 128,
        template: str = "chat",
    ) -> None:
        check_integer("max_new_tokens", max_new_tokens, 1)
        check_choice("template", template, TEMPLATES)
        self.data = data
        self.messages = [str(turn) for row in read_jsonl(data, ("turns",)) for turn in row["turns"]]
        self.num_turns = len(self.messages) if num_turns is None else num_turns
        check_integer("turns", self.num_turns, 1)
        self.max_new_tokens = max_new_tokens
        self.template = template

    @property
    def num_samples(self) -> int:
        """Conversations: one."""
        return 1

    def num_parts(self, sample: int) -> int:
        """Return how many messages are asked."""
        return self.num_turns

    def settings(self) -> dict[str, Any]:
        """Return data, sizes and template."""
        return {
            "data": self.data.name,
            "turns": self.num_turns,
            "max_new_tokens": self.max_new_tokens,
            "template": self.template,
        }

    def run(self, job: Job) -> None:
        """Ask the messages that are left."""
        lm, frame = job.lm, ChatFrame.of(job.lm, self.template)
        between = frame.reopening or "\n\n"
        for number in range(len(job.parts), self.num_turns):
            message = self.messages[number % len(self.messages)]
            text = (between if number else frame.opening) + message + (frame.answering or "\n\n")
            ids = lm.encode(text, add_special_tokens=not number, is_continuation=number > 0)
            nll = feed_scored(job.stream, ids)
            answer = answer_greedily(job.stream, lm, self.max_new_tokens, lambda text: False)
            if answer.token_ids:
                job.stream.feed(ids.new_tensor(answer.token_ids), logits="last")
            totals = {
                "question_nll": (float(nll.sum()), float(len(nll))),
                "ends_itself": (float(answer.is_complete), 1.0),
                "loops": (float(is_loop(answer.text)), 1.0),
                "answer_tokens": (float(len(answer.token_ids)), 1.0),
            }
            facts = {"answer": answer.text, "num_seen_tokens": job.stream.num_seen_tokens}
            job.add(Part(totals, facts))
