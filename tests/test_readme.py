"""Check that the pages are true: their samples run, the README's tree and all links exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from streamingllm import LanguageModel

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


def samples_of(page: Path) -> list[str]:
    """Return the Python samples of a page."""
    text = page.read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


# Their samples need packages of clients and a server: tests/clients/test_docs.py runs them.
PAGES_OF_CLIENTS = ("clients.md", "server.md")
SAMPLES = {
    f"{page.name}-{number}": sample
    for page in PAGES
    if page.name not in PAGES_OF_CLIENTS
    for number, sample in enumerate(samples_of(page), start=1)
}


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_runs_as_it_stands(
    name: str,
    default_model: LanguageModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(SAMPLES[name], name, "exec"), {})


def test_the_readme_has_samples() -> None:
    assert len(samples_of(ROOT / "README.md")) == 3


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
