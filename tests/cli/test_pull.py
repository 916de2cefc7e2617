from __future__ import annotations

import json
from pathlib import Path

import pytest

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
    assert capsys.readouterr().err.startswith(f"error: json={str(target)!r}: must be")
