from __future__ import annotations

from pathlib import Path

import pytest
import torch

from streamingllm.evaluation.tasks.mt_bench import MtBenchTask
from tests.evaluation.tasks.evaluating import byte_lm, parts_of, write_jsonl
from tests.evaluation.tasks.oracle import greedy_ids, nll_of_ids

ROWS = [{"turns": ["Hello?", "And now?"]}, {"turns": ["Why?"]}]


def test_questions_and_own_answers_are_one_stream(tmp_path: Path) -> None:
    task = MtBenchTask(write_jsonl(tmp_path / "mt.jsonl", ROWS), 4, max_new_tokens=5)
    parts = parts_of(task, "4+2000")
    ids = torch.empty(0, dtype=torch.long)
    for number, message in enumerate(["Hello?", "And now?", "Why?", "Hello?"]):
        start = "[end][user]" if number else "[user]"
        asked = byte_lm().encode(f"{start}{message}[end][assistant]")
        first = max(1, len(ids))  # nothing predicts the first token
        ids = torch.cat([ids, asked])
        nll, count = parts[number].totals["question_nll"]
        assert nll == pytest.approx(nll_of_ids(ids, first), rel=1e-4)
        assert count == len(ids) - first
        answer = greedy_ids(ids, 5)
        assert parts[number].facts["answer"] == byte_lm().decode(answer)
        assert parts[number].totals["answer_tokens"] == (5.0, 1.0)
        ids = torch.cat([ids, answer])
    assert len(MtBenchTask(task.data).messages) == MtBenchTask(task.data).num_turns == 3
