from __future__ import annotations

import json
from pathlib import Path

import pytest

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
