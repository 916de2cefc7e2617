from __future__ import annotations

from pathlib import Path

import pytest
import torch

from streamingllm import Stream, StreamConfig
from streamingllm.errors import ConfigError
from streamingllm.evaluation.tasks.gsm8k import Gsm8kTask, is_loop, number_of
from tests.evaluation.tasks.evaluating import byte_lm, parts_of, run, write_jsonl
from tests.evaluation.tasks.oracle import greedy_after, nll_after

ROW = {"question": "How many?", "answer": "She has 2+1=<<2+1=3>>3 eggs.\n#### 3"}
EXAMPLE = {"question": "And?", "answer": "It is 1+1=<<1+1=2>>2.\n#### 2"}
ASKED = "Question: How many?\nAnswer:"
CHAIN, NUMBER = " She has 2+1=3 eggs.\n#### ", "3"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "gsm8k.jsonl", [ROW])


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "examples.jsonl", [EXAMPLE])


@pytest.mark.parametrize("shots", [0, 1])
def test_chain_and_number_are_scored_apart(data: Path, examples: Path, shots: int) -> None:
    before = "Question: And?\nAnswer: It is 1+1=2.\n#### 2\n\n" if shots else ""
    (part,) = parts_of(Gsm8kTask(data, shots=shots, examples=examples), "4+2000")
    chain = nll_after(before + ASKED, CHAIN)
    number = nll_after(before + ASKED + CHAIN, NUMBER)
    assert part.totals["chain_nll"][0] == pytest.approx(chain, rel=1e-4)
    assert part.totals["number_nll"][0] == pytest.approx(number, rel=1e-4)
    assert (part.totals["chain_nll"][1], part.totals["number_nll"][1]) == (len(CHAIN), 1)


def test_a_pinned_question_is_seen_from_outside_of_the_window(data: Path, examples: Path) -> None:
    task = Gsm8kTask(data, shots=1, examples=examples, pins_question=True)
    (part,) = parts_of(task, "2+12")
    before = "Question: And?\nAnswer: It is 1+1=2.\n#### 2\n\n"
    start, stop = len(before), len(before) + len(ASKED)
    pinned = (0, 1, *range(start, stop))
    config = StreamConfig(len(pinned), 12, sink_positions=pinned, chunk_size=1)
    stream = Stream(byte_lm().model, config)
    ids = byte_lm().encode(before + ASKED + CHAIN + NUMBER)
    logits = stream.feed(ids).double().log_softmax(-1)
    nll = -logits[:-1].gather(1, ids[1:, None])[:, 0]
    chain = nll[stop - 1 : stop - 1 + len(CHAIN)]
    assert part.totals["chain_nll"][0] == pytest.approx(float(chain.sum()), rel=1e-4)
    assert part.totals["number_nll"][0] == pytest.approx(float(nll[-1]), rel=1e-4)
    (apart,) = parts_of(Gsm8kTask(data, shots=1, examples=examples), "2+12")
    assert apart.totals["chain_nll"][0] != pytest.approx(part.totals["chain_nll"][0], rel=1e-4)
    assert torch.isfinite(nll).all()


def test_an_own_answer_is_scored_by_its_number(data: Path) -> None:
    ((part,),) = run(Gsm8kTask(data, max_new_tokens=10), "4+2000").samples["4+2000"]
    answer = part.facts["answer"]
    assert answer == greedy_after(ASKED, 10)
    assert part.totals["exact_match"] == (float(number_of(answer) == "3"), 1.0)
    assert part.totals["answer_tokens"] == (10.0, 1.0)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("so 5.\n#### 1,234\nmore 6", "1234"),
        ("it is 3 and then $4,000.", "4000"),
        ("#### -2.5", "-2.5"),
        ("none", None),
    ],
)
def test_the_number_of_an_answer(text: str, number: str | None) -> None:
    assert number_of(text) == number


def test_loops() -> None:
    line = "one two three four five six seven eight"
    assert is_loop(f"{line} nine {line}")
    assert not is_loop(f"{line} nine ten")
    assert not is_loop("short")


def test_what_cannot_be_done_is_refused(data: Path, examples: Path) -> None:
    with pytest.raises(ConfigError, match="shots=2 needs examples"):
        Gsm8kTask(data, shots=2)
    with pytest.raises(ConfigError, match="shots=2 exceeds the 1 examples"):
        Gsm8kTask(data, shots=2, examples=examples)
    with pytest.raises(ConfigError, match="cache='dense' cannot pin a question"):
        run(Gsm8kTask(data, pins_question=True), "dense")
