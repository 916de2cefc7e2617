from __future__ import annotations

import re

import pytest

from streamingllm.errors import ConfigError
from streamingllm.evaluation.tasks.streameval import HEADER, StreamEvalTask, queries_of
from tests.evaluation.tasks.evaluating import byte_lm, parts_of
from tests.evaluation.tasks.oracle import assert_greedy, nll_after

FIGURE_8 = StreamEvalTask(num_samples=1, num_queries=500)


def stream_text(task: StreamEvalTask, num_queries: int) -> str:
    """The input up to the end of a question, written from the paper's figure 8."""
    values = task.values(0)
    text = "Below is a record of lines I want you to remember."
    line = 0
    for number in range(num_queries):
        last = task.line_distance + number * task.lines_per_query
        while line <= last:
            text += f"\nThe REGISTER_CONTENT in line {line} is <{values[line]}>"
            line += 1
        text += f"\nQuery: The REGISTER_CONTENT in line {last - task.line_distance} is"
    return text


def test_a_sample_has_the_lines_that_figure_8_counts() -> None:
    # 44 lines are printed and 5,467 omitted, 497 blocks of ten lines and a question.
    lines = stream_text(FIGURE_8, 500).split("\n")
    assert len(lines) - 1 == 44 + 497 * 11
    assert sum(line.startswith("Query: ") for line in lines) == 500
    assert FIGURE_8.queries[-1].last_line == 5010
    assert len(FIGURE_8.values(0)) == 5011
    assert all(1 <= value <= 50_000 for value in FIGURE_8.values(0))
    assert lines[0] == HEADER


def test_the_first_questions_come_after_lines_20_30_and_40() -> None:
    found = [(query.last_line, query.target_line) for query in FIGURE_8.queries[:3]]
    assert found == [(20, 0), (30, 10), (40, 20)]
    assert [query.first_line for query in FIGURE_8.queries[:3]] == [0, 21, 31]


@pytest.mark.parametrize("distance", [0, 20, 1000])
def test_each_line_is_read_once(distance: int) -> None:
    queries = queries_of(7, distance, 10)
    read = [line for q in queries for line in range(q.first_line, q.last_line + 1)]
    assert read == list(range(distance + 61))
    assert {q.last_line - q.target_line for q in queries} == {distance}


def test_numbers_depend_on_seed_and_sample() -> None:
    task = StreamEvalTask(2, 3)
    assert task.values(0) == StreamEvalTask(2, 3).values(0)
    assert task.values(0) != task.values(1)
    assert task.values(0) != StreamEvalTask(2, 3, seed=1).values(0)


@pytest.mark.parametrize("cache", ["dense", "4+3000", "window:3000", "fresh:3000"])
def test_scores_are_those_of_the_text_while_nothing_is_evicted(cache: str) -> None:
    task = StreamEvalTask(num_queries=2, line_distance=2, lines_per_query=2)
    parts = parts_of(task, cache)
    for number, part in enumerate(parts):
        text = stream_text(task, number + 1)
        value = task.values(0)[2 * number]
        assert part.facts["value"] == value
        gold = f" <{value}>"
        assert part.totals["gold_nll"][0] == pytest.approx(nll_after(text, gold), rel=1e-4)
        assert part.totals["gold_nll"][1] == len(gold)
        assert_greedy(part.facts["answer"], text)
        assert part.facts["num_seen_tokens"] == len(byte_lm().encode(text))
        after = text.split(f"<{value}>", 1)[1]
        assert part.facts["distance_tokens"] == len(after)
        assert part.facts["is_visible"]


def test_own_answers_stay_where_asked() -> None:
    task = StreamEvalTask(num_queries=2, line_distance=1, lines_per_query=1, keep="answer")
    first, second = parts_of(task, "4+3000")
    kept = first.facts["kept_text"]
    assert kept == " " + first.facts["answer"].strip().splitlines()[0].strip()
    one, two = stream_text(task, 1), stream_text(task, 2)
    text = one + kept + two[len(one) :]
    gold = f" <{task.values(0)[1]}>"
    assert second.totals["gold_nll"][0] == pytest.approx(nll_after(text, gold), rel=1e-4)


def test_a_chat_template_stands_around_the_record() -> None:
    task = StreamEvalTask(num_queries=2, line_distance=1, lines_per_query=1, template="chat")
    parts = parts_of(task, "4+3000")
    text = "[user]" + stream_text(task, 2) + "[end][assistant]"
    gold = f" <{task.values(0)[1]}>"
    assert parts[1].totals["gold_nll"][0] == pytest.approx(nll_after(text, gold), rel=1e-4)


def test_a_target_outside_of_the_window_is_not_visible() -> None:
    task = StreamEvalTask(num_queries=1, line_distance=2)
    (part,) = parts_of(task, "4+3000")
    line = f"\nThe REGISTER_CONTENT in line 0 is <{part.facts['value']}>"
    distance = part.facts["distance_tokens"]
    needed = distance + len(line)
    for window, is_visible in ((needed, True), (needed - 1, False)):
        (part,) = parts_of(task, f"4+{window}")
        assert part.facts["is_visible"] is is_visible
        assert part.totals["accuracy_visible"][1] == float(is_visible)


@pytest.mark.parametrize(
    ("score", "text", "expected"),
    [
        ("bracket", " <123> and <45>", 123),
        ("bracket", " 123", None),
        ("last", " <123> and 4,500.", 4500),
        ("last", "none", None),
    ],
)
def test_the_integer_of_an_answer(score: str, text: str, expected: int | None) -> None:
    assert StreamEvalTask(score=score).integer_of(text) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": "all"}, "keep='all' is unknown"),
        ({"score": "best"}, "score='best' is unknown"),
        ({"num_queries": 0}, "queries=0 is out of range"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        StreamEvalTask(**options)
