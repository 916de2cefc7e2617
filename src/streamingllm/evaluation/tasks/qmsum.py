"""Score gold answers about long meetings, the transcript cut to a cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch

from streamingllm.checks import check_integer
from streamingllm.evaluation.jsonl import read_jsonl
from streamingllm.evaluation.scoring import feed_scored
from streamingllm.evaluation.tasks.base import Job, Part, Task


class QmsumTask(Task):
    """Measure the likelihood of gold answers after a meeting's transcript and a question.

    Under a `fresh` cache the first and the last half of its tokens are kept of the transcript and
    the question, as LongBench truncates.

    Args:
        data: QMSum's JSON lines.
        max_questions: questions read, one for each meeting in turn; None reads all.

    Source: Zhong et al., "QMSum" (arXiv 2104.05938); the truncation is that of LongBench (arXiv
    2308.14508), with which the paper's table 8 compares. Deviation: likelihood instead of ROUGE.
    """

    name: ClassVar[str] = "qmsum"
    sample_noun: ClassVar[str] = "question"
    part_noun: ClassVar[str] = "question"
    primary: ClassVar[str] = "answer_nll"
    takes_fresh: ClassVar[bool] = True

    def __init__(self, data: Path, max_questions: int | None = None) -> None:
        if max_questions is not None:
            check_integer("max_questions", max_questions, 1)
        self.data = data
        meetings = read_jsonl(data, ("meeting_transcripts", "specific_query_list"))
        longest = max(len(meeting["specific_query_list"]) for meeting in meetings)
        self.questions = [
            (meeting, meeting["specific_query_list"][turn])
            for turn in range(longest)
            for meeting in meetings
            if turn < len(meeting["specific_query_list"])
        ][:max_questions]

    @property
    def num_samples(self) -> int:
        """Questions."""
        return len(self.questions)

    def num_parts(self, sample: int) -> int:
        """Return 1."""
        return 1

    def settings(self) -> dict[str, Any]:
        """Return the data and the number of questions."""
        return {"data": self.data.name, "questions": self.num_samples}

    def texts(self, sample: int) -> tuple[str, str]:
        """Return a prompt and its gold answer."""
        meeting, question = self.questions[sample]
        turns = (f"{turn['speaker']}: {turn['content']}" for turn in meeting["meeting_transcripts"])
        transcript = "\n".join(turns)
        prompt = (
            "Below is the transcript of a meeting. Answer the question at its end.\n\n"
            f"{transcript}\n\nQuestion: {question['query']}\nAnswer:"
        )
        return prompt, f" {question['answer']}"

    def run(self, job: Job) -> None:
        """Score one gold answer."""
        prompt, gold = self.texts(job.sample)
        ids = job.lm.encode(prompt)
        room = job.cache.config.window_size
        if job.cache.is_fresh and len(ids) > room:
            ids = torch.cat([ids[: room - room // 2], ids[len(ids) - room // 2 :]])
        job.stream.feed(ids, logits="last")
        answer = job.lm.encode(gold, add_special_tokens=False, is_continuation=True)
        nll = feed_scored(job.stream, answer)
        totals = {"answer_nll": (float(nll.sum()), float(len(nll)))}
        job.add(Part(totals, {"prompt_tokens": len(ids)}))
