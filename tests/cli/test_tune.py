from __future__ import annotations

import json
from pathlib import Path

import pytest

from streamingllm import load_model
from tests.cli.terminal import run_command


def test_a_model_is_tuned(
    tiny_folder: Path, tiny_text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["tune", str(tiny_folder), "--text", str(tiny_text), "--cache-size", "40"]
    assert run_command(*arguments) == 0
    assert "recommended: " in capsys.readouterr().out
    assert run_command(*arguments, "--json", "-") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["recommended"]["cache"] in found["caches"]
    assert len(found["caches"]) == 7
    assert found["config"]["cache_size"] == 40
    assert {"versions", "hardware", "git_commit"} <= found.keys()


def test_a_recommendation_is_saved_for_loading(
    tiny_folder: Path, tiny_text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--text", str(tiny_text), "--cache-size", "40", "--save", "--json", "-"]
    assert run_command("tune", str(tiny_folder), "--cache-dir", str(tmp_path), *arguments) == 0
    recommended = json.loads(capsys.readouterr().out)["recommended"]
    config = load_model(tiny_folder, tuned=True, cache_dir=tmp_path).stream_config
    assert config is not None
    assert config.num_sink_tokens == recommended["num_sink_tokens"]
    assert config.window_size == recommended["window_size"]
