"""Check that the README is true: its samples run, its tree and its links exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from streamingllm import LanguageModel

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SAMPLES = re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


@pytest.mark.parametrize("number", range(len(SAMPLES)))
def test_a_sample_runs_as_it_stands(
    number: int,
    default_model: LanguageModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(SAMPLES[number], f"README.md, sample {number + 1}", "exec"), {})


def test_there_are_samples() -> None:
    assert len(SAMPLES) == 3


def test_the_tree_names_every_package_and_no_other() -> None:
    tree = README.split("src/streamingllm/\n")[1].split("tests/")[0]
    named = {
        name.rstrip("/")
        for line in tree.splitlines()
        if (found := re.match(r"  ([\w./ ]+?)(  |$)", line))
        for name in found[1].split()
    }
    package = ROOT / "src" / "streamingllm"
    folders = {path.parent.name for path in package.glob("*/__init__.py")}
    files = {path.name for path in package.glob("*.py")}
    assert {name for name in named if not name.endswith(".py")} == folders
    assert {name for name in named if name.endswith(".py")} <= files


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_of_a_page_exist(page: Path) -> None:
    targets = re.findall(r"\]\(([^)\s#]+)(?:#[^)\s]*)?\)", page.read_text(encoding="utf-8"))
    local = [target for target in targets if "://" not in target]
    missing = [target for target in local if not (page.parent / target).exists()]
    assert missing == []
