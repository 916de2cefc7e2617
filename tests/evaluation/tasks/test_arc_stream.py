from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from streamingllm.errors import InputError
from streamingllm.evaluation.tasks.arc_stream import ArcStreamTask
from streamingllm.evaluation.tasks.base import Part
from tests.evaluation.tasks.evaluating import parts_of, write_jsonl
from tests.evaluation.tasks.oracle import greedy_after, nll_after

ROWS: list[dict[str, Any]] = [
    {"query": "Question: a?", "choices": ["yes", "no"], "gold": 0},
    {"query": "Question: b?", "choices": ["one", "two", "three"], "gold": 2},
    {"query": "Question: c?", "choices": ["up", "down"], "gold": 1},
]
SHOWN = (
    "Question: a?\nA. yes\nB. no\nAnswer:",
    "Question: b?\nA. one\nB. two\nC. three\nAnswer:",
    "Question: c?\nA. up\nB. down\nAnswer:",
)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "arc.jsonl", ROWS)


@pytest.mark.parametrize("cache", ["4+2000", "dense"])
def test_pairs_follow_one_another(data: Path, cache: str) -> None:
    texts = [
        f"{SHOWN[0]} yes\n\n{SHOWN[1]}",
        f"{SHOWN[0]} yes\n\n{SHOWN[1]} three\n\n{SHOWN[2]}",
    ]
    check(parts_of(ArcStreamTask(data), cache), texts)


def test_fresh_is_one_shot(data: Path) -> None:
    texts = [f"{SHOWN[0]} yes\n\n{SHOWN[1]}", f"{SHOWN[0]} yes\n\n{SHOWN[2]}"]
    check(parts_of(ArcStreamTask(data), "fresh:2000"), texts)


def check(parts: Sequence[Part], texts: list[str]) -> None:
    assert len(parts) == 2
    for part, text, row in zip(parts, texts, ROWS[1:], strict=True):
        options = [f" {choice}" for choice in row["choices"]]
        nll = [nll_after(text, option) for option in options]
        gold = row["gold"]
        assert part.totals["gold_nll"][0] == pytest.approx(nll[gold], rel=1e-4)
        assert part.totals["gold_nll"][1] == len(options[gold])
        assert part.totals["option_accuracy"] == (float(nll.index(min(nll)) == gold), 1.0)
        mean = [a / (len(b) - 1) for a, b in zip(nll, options, strict=True)]
        expected = (float(mean.index(min(mean)) == gold), 1.0)
        assert part.totals["option_accuracy_per_byte"] == expected
        answer = greedy_after(text, 48).strip().splitlines()[0].strip()
        assert part.facts["answer"] == answer
        assert part.totals["exact_match"] == (float(answer == row["choices"][gold]), 1.0)


def test_letters_and_hidden_options(data: Path) -> None:
    task = ArcStreamTask(data, 1, answer="letter")
    assert task.options_of(ROWS[1]) == "ABC"
    assert task.num_parts(0) == 1
    plain = ArcStreamTask(data, lists_options=False)
    assert plain.prompt_of(ROWS[0]) == "Question: a?\nAnswer:"
    with pytest.raises(InputError, match="answer='letter' needs the options"):
        ArcStreamTask(data, answer="letter", lists_options=False)


@pytest.mark.parametrize(
    ("content", "message"),
    [("", "is empty"), ("{}\n", "lacks query, choices, gold in line 1"), ("no\n", "no JSON")],
)
def test_other_files_are_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        ArcStreamTask(path)
    with pytest.raises(InputError, match="cannot be read"):
        ArcStreamTask(tmp_path / "none.jsonl")


def test_the_right_answer_is_a_match(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from streamingllm.evaluation.scoring import Answer
    from streamingllm.evaluation.tasks import arc_stream

    answers = iter([" three\n", " up"])
    monkeypatch.setattr(
        arc_stream, "answer_greedily", lambda *_: Answer(next(answers), [], is_complete=True)
    )
    parts = parts_of(ArcStreamTask(data), "4+2000")
    assert [part.totals["exact_match"] for part in parts] == [(1.0, 1.0), (0.0, 1.0)]
