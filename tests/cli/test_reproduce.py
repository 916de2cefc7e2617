from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from streamingllm.cli.reproduce import EXHIBIT_NAMES
from streamingllm.evaluation.reproduce import context as context_module
from streamingllm.evaluation.reproduce.context import Sizes
from streamingllm.evaluation.reproduce.registry import EXHIBITS
from tests.cli.terminal import run_command

Capture = pytest.CaptureFixture[str]
SIZES = Sizes(40, 120, 16, 200, (30, 40), 2, 1, (1, 2), 2, 1, 3)
ARC = {"query": "Question: a?", "choices": ["yes", "no"], "gold": 0}
MEETING = {
    "meeting_transcripts": [{"speaker": "A", "content": "We meet. " * 9}],
    "specific_query_list": [{"query": "Who?", "answer": "A does."}],
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("arc-easy-test", "arc-challenge-test"):
        (folder / f"{name}.jsonl").write_text(f"{json.dumps(ARC)}\n" * 4)
    (folder / "qmsum-test.jsonl").write_text(json.dumps(MEETING) + "\n")
    return folder


@pytest.fixture
def arguments(
    tiny_folder: Path, tiny_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    monkeypatch.setattr(context_module, "QUICK", SIZES)
    model = ["--model", str(tiny_folder), "--text", str(tiny_text)]
    return ["reproduce", "--quick", *model, "--folder", str(tmp_path / "out")]


def results(capture: Capture, *arguments: str) -> dict[str, Any]:
    assert run_command(*arguments, "--json", "-") == 0
    found: dict[str, Any] = json.loads(capture.readouterr().out)
    return found


def test_names_are_those_of_the_registry() -> None:
    assert set(EXHIBIT_NAMES) == set(EXHIBITS)


def test_every_exhibit_is_made_and_reported(
    arguments: list[str], data: Path, tmp_path: Path, capsys: Capture
) -> None:
    found = results(capsys, *arguments, "--data", str(data))
    assert list(found["exhibits"]) == list(EXHIBIT_NAMES)
    for name, exhibit in found["exhibits"].items():
        assert exhibit["claims"], name
        for cells in exhibit["rows"].values():
            assert len(cells) == len(exhibit["columns"]), name
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == found
    markdown = (tmp_path / "out" / "report.md").read_text()
    page = (tmp_path / "out" / "report.html").read_text()
    for plan in EXHIBITS.values():
        assert f"## {plan.title}" in markdown
        assert f"<h2>{plan.title}</h2>" in page
    for name in ("figure-3", "figure-5", "figure-9"):
        assert (tmp_path / "out" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert "| Llama-2-7B | 3359.95 | 11.88 |" in markdown
    assert page.count("data:image/png;base64,") == 3
    assert {"versions", "hardware", "git_commit"} <= found.keys()
    # A second run has nothing left to do, and the same numbers.
    again = results(capsys, *arguments, "table-2", "--data", str(data))
    assert again["exhibits"]["table-2"] == found["exhibits"]["table-2"]


def test_tables_share_what_they_measure(arguments: list[str], capsys: Capture) -> None:
    found = results(capsys, *arguments, "table-2", "table-3", "table-1", "figure-3")["exhibits"]
    two = found["table-2"]["rows"]["cache of 40"]
    assert found["table-3"]["rows"]["vanilla"] == two[:4]
    report = found["table-1"]["reports"]["table-1"]
    assert found["figure-3"]["reports"]["table-1"] == report
    for cell, cache in ((0, "dense"), (1, "0+40"), (3, "4+36")):
        row = found["table-1"]["rows"]["perplexity"]
        assert row[cell] == report["caches"][cache]["perplexity"]


def test_without_data_the_report_says_what_is_missing(
    arguments: list[str], tmp_path: Path, capsys: Capture
) -> None:
    found = results(capsys, *arguments, "table-8")
    assert found["exhibits"]["table-8"]["not_run"] == "--data has no qmsum-test.jsonl"
    assert "Not run: --data has no qmsum-test.jsonl." in (tmp_path / "out/report.md").read_text()


def test_an_unknown_exhibit_is_refused(capsys: Capture) -> None:
    assert run_command("reproduce", "table-4") == 2
    assert "exhibit='table-4' is unknown" in capsys.readouterr().err
