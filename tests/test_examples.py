"""Every example runs as a newcomer would run it, and stays short."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from streamingllm import LanguageModel

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))
EXPECTED = {
    "drop_in_cache": "32 cached",
    "go_back": "the same:    True",
    "pin_a_prefix": "= 128 visible",
    "read_and_write": "128 are visible",
}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs(path: Path, default_model: LanguageModel) -> None:
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert EXPECTED[path.stem] in done.stdout


def test_examples_are_short_and_all_expected() -> None:
    assert {path.stem for path in EXAMPLES} == set(EXPECTED)
    assert all(len(path.read_text().splitlines()) <= 40 for path in EXAMPLES)
