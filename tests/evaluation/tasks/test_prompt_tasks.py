from __future__ import annotations

import re
from pathlib import Path

import pytest

from streamingllm.errors import ConfigError
from streamingllm.evaluation.tasks.longeval import LongEvalTask
from streamingllm.evaluation.tasks.passkey import FILLER, PasskeyTask
from tests.evaluation.tasks.evaluating import run, write_jsonl
from tests.evaluation.tasks.oracle import assert_greedy, nll_after

LONGEVAL = Path("../shared/data/longeval-lines-200-10.jsonl")


def test_longeval_scores_its_prompt() -> None:
    task = LongEvalTask(2, num_lines=3)
    samples = run(task, "4+3000").samples["4+3000"]
    for number, (part,) in enumerate(samples):
        prompt = task.prompt(number)
        text = f"[user]{prompt.text}[end][assistant]"
        name = re.search(r"in line (\S+)\?", prompt.text)
        assert name is not None
        value = re.search(rf"line {name[1]}: REGISTER_CONTENT is <(\d+)>", prompt.text)
        assert value is not None
        assert part.facts["number"] == int(value[1])
        led = f"{text}The <REGISTER_CONTENT> in line {name[1]} is <"
        assert part.totals["gold_nll"][0] == pytest.approx(nll_after(led, value[1]), rel=1e-4)
        assert part.totals["gold_nll"][1] == len(value[1])
        assert_greedy(part.facts["answer"], text)


@pytest.mark.skipif(not LONGEVAL.exists(), reason="the data are not there")
def test_made_prompts_have_the_form_of_longevals_own() -> None:
    def form(text: str) -> str:
        return re.sub(r"line [A-Za-z'-]+", "line NAME", re.sub(r"<\d+>", "<N>", text))

    theirs = LongEvalTask(data=LONGEVAL).prompt(0)
    assert form(LongEvalTask(1).prompt(0).text) == form(theirs.text)
    assert f"<{theirs.number}>" in theirs.text
    assert LongEvalTask(data=LONGEVAL).num_samples == 10


def test_longeval_reads_prompts_of_a_file(tmp_path: Path) -> None:
    row = {"prompt": "line a-b: 7. Which?", "expected_number": 7, "random_idx": ["a-b", 0]}
    task = LongEvalTask(data=write_jsonl(tmp_path / "lines.jsonl", [row, row]))
    assert task.num_samples == 2
    prompt = task.prompt(1)
    assert (prompt.text, prompt.number) == ("line a-b: 7. Which?", 7)
    assert prompt.lead == "The <REGISTER_CONTENT> in line a-b is <"


def test_names_of_lines_are_distinct() -> None:
    text = LongEvalTask(1, num_lines=600).prompt(0).text
    names = re.findall(r"^line (\S+): REGISTER_CONTENT is <\d+>$", text, re.MULTILINE)
    assert len(names) == len(set(names)) == 600
    with pytest.raises(ConfigError, match="lines=5000 is out of range"):
        LongEvalTask(1, num_lines=5000)


def test_passkeys_stand_at_even_depths() -> None:
    task = PasskeyTask(5, num_fillers=8)
    for number in range(5):
        prompt = task.prompt(number)
        before, info, after = re.split(
            r"(The pass key is \d+\. Remember it\. \d+ is the pass key\.\n)", prompt.text
        )
        assert (before.count(FILLER), after.count(FILLER)) == (2 * number, 8 - 2 * number)
        assert info.count(str(prompt.number)) == 2
        assert prompt.text.endswith("What is the pass key? The pass key is")


def test_passkey_scores_its_prompt() -> None:
    task = PasskeyTask(1, num_fillers=1)
    ((part,),) = run(task, "4+3000").samples["4+3000"]
    prompt = task.prompt(0)
    gold = f" {prompt.number}"
    assert part.totals["gold_nll"][0] == pytest.approx(nll_after(prompt.text, gold), rel=1e-4)
    again = PasskeyTask(1, num_fillers=1, seed=1)
    assert task.settings() != again.settings()
    assert again.prompt(0) != prompt
