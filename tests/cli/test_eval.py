from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from streamingllm.evaluation.tasks.registry import TASKS, task_class
from tests.cli.terminal import run_command

Capture = pytest.CaptureFixture[str]
ARC = {"query": "Question: a?", "choices": ["yes", "no"], "gold": 0}
GSM8K = {"question": "How many?", "answer": "It is 1+1=<<1+1=2>>2.\n#### 2"}


def results(capture: Capture, *arguments: str) -> dict[str, Any]:
    assert run_command("eval", *arguments, "--json", "-") == 0
    found: dict[str, Any] = json.loads(capture.readouterr().out)
    return found


@pytest.fixture
def small(tmp_path: Path, tiny_text: Path) -> dict[str, list[str]]:
    """A short run of each task."""

    def data(name: str, row: object) -> list[str]:
        path = tmp_path / f"{name}.jsonl"
        path.write_text(f"{json.dumps(row)}\n" * 3)
        return ["--data", str(path)]

    return {
        "perplexity": ["--text", str(tiny_text), "--segment-tokens", "100"],
        "streameval": ["--queries", "2", "--line-distance", "2"],
        "arc-stream": data("arc", ARC),
        "longeval": ["--samples", "2", "--lines", "2", "--template", "raw"],
        "passkey": ["--samples", "2", "--fillers", "2"],
        "gsm8k": [*data("gsm8k", GSM8K), "--pin-question", "--max-new-tokens", "3"],
        "mt-bench": [*data("mt", {"turns": ["Hello"]}), "--template", "raw", "--turns", "2"],
    }


@pytest.mark.parametrize("task", [name for name in TASKS if name != "qmsum"])  # of `reproduce`
def test_every_task_reports_and_goes_on(
    task: str, small: dict[str, list[str]], tiny_folder: Path, tmp_path: Path, capsys: Capture
) -> None:
    plot, resume = tmp_path / "plot.png", tmp_path / "records.jsonl"
    arguments = [task, *small[task], "--model", str(tiny_folder), "--resume", str(resume)]
    arguments += ["--cache", "4+60", "--cache", "0+64", "--plot", str(plot), "--seed", "3"]
    found = results(capsys, *arguments)
    assert found["task"] == task == task_class(task).name
    assert list(found["caches"]) == list(found["samples"]) == ["4+60", "0+64"]
    assert found["config"]["caches"]["4+60"]["num_sink_tokens"] == 4
    assert found["config"]["task_settings"] == found["task_settings"]
    assert (found["seed"], found["config"]["dtype"]) == (3, "float32")
    assert {"versions", "hardware", "git_commit"} <= found.keys()
    primary = task_class(task).primary
    assert found["caches"]["4+60"][primary]["value"] is not None
    assert set(found["differences"]) == {"0+64 - 4+60"}
    assert plot.read_bytes().startswith(b"\x89PNG")
    again = results(capsys, *arguments)
    assert {**again, "seconds": 0} == {**found, "seconds": 0}
    assert run_command("eval", *arguments, "--cache", "dense", "--dtype", "float64") == 2
    assert "belongs to a run with other settings (caches.dense" in capsys.readouterr().err


def test_texts_are_samples_or_one_stream(
    tiny_folder: Path, tiny_text: Path, capsys: Capture
) -> None:
    texts = ["--text", str(tiny_text), "--text", str(tiny_text), "--model", str(tiny_folder)]
    apart = results(capsys, "perplexity", *texts, "--max-tokens", "80")
    assert [text["tokens"] for text in apart["task_settings"]["texts"]] == [80, 80]
    joined = results(capsys, "perplexity", *texts, "--concatenate")
    (text,) = joined["task_settings"]["texts"]
    assert text == {"name": "text.txt + text.txt", "tokens": 2 * len(tiny_text.read_bytes())}


def test_people_read_a_table(tiny_folder: Path, capsys: Capture) -> None:
    run = ["eval", "passkey", "--samples", "1", "--fillers", "0", "--model", str(tiny_folder)]
    assert run_command(*run, "--cache", "4+60") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["metric", "4+60"]
    assert [line.split()[0] for line in lines[1:3]] == ["accuracy", "gold_nll"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["streameval", "--cache", "4x8"], "cache='4x8' names no strategy"),
        (["streameval", "--queries", "0"], "queries=0 is out of range"),
        (["perplexity", "--text", "no-such-file"], "text='no-such-file' cannot be read"),
        (["passkey", "--resume", "none/records.jsonl"], "resume='none/records.jsonl' cannot"),
        (["arc-stream", "--data", "none.jsonl"], "data='none.jsonl' cannot be read"),
    ],
)
def test_wrong_options_are_refused_before_a_model_is_loaded(
    arguments: list[str], message: str, capsys: Capture
) -> None:
    assert run_command("eval", *arguments, "--model", "no-such-model") == 2
    assert message in capsys.readouterr().err
