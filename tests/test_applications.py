"""Every application runs on its data, or on data made here, and prints its figures."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from streamingllm import LanguageModel

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "examples" / "applications"
SHARED = ROOT.parent / "shared" / "data"
HELPERS = {"figures"}
SMALL = {
    "agent": ["--steps", "24", "--cache-size", "320"],
    "book": ["--chapters", "3", "--characters", "1500", "--quotes", "2"],
    "character": ["--characters", "1", "--turns", "30", "--facts", "2"],
    "meeting": ["--turns", "24", "--minutes", "0"],
    "repository": ["--tokens", "1500", "--skip", "700", "--every", "400", "--cache-size", "384"],
    "support_desk": ["--chats", "1", "--turns", "20", "--cache-size", "1024"],
}
BETTER = {  # a figure that the memory must raise, because it counts what is in view
    "book": "quoted sentences recalled",
    "meeting": "questions with evidence in view",
    "support_desk": "chats with the right rule in view",
}


def figures(printed: str) -> dict[str, list[float]]:
    """Return the rows of the printed table by their names."""
    rows = re.findall(r"^(\S.*?)((?:  +-?\d+\.\d{3})+)$", printed, re.MULTILINE)
    return {name.strip(): [float(value) for value in values.split()] for name, values in rows}


def run(name: str, data: Path) -> str:
    done = subprocess.run(
        [sys.executable, FOLDER / f"{name}.py", "--data", str(data), *SMALL[name]],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("is_shared", [False, True], ids=["made", "real"])
@pytest.mark.parametrize("name", sorted(SMALL))
def test_an_application_prints_its_figures(
    name: str, is_shared: bool, tmp_path: Path, default_model: LanguageModel
) -> None:
    if is_shared and (name in ("agent", "repository") or not SHARED.is_dir()):
        pytest.skip("there is no data for it")
    found = figures(run(name, SHARED if is_shared else tmp_path))
    assert found
    assert all(len(values) == len(next(iter(found.values()))) >= 2 for values in found.values())
    counted = re.compile("tokens?|milliseconds|nats")
    shares = [values for measure, values in found.items() if not counted.search(measure)]
    assert shares
    assert all(0 <= share <= 1 for values in shares for share in values)
    if name in BETTER:
        window, remembered = found[BETTER[name]]
        assert window < remembered


def test_a_stream_stays_within_its_cache_whatever_it_has_seen(default_model: LanguageModel) -> None:
    found = figures(run("agent", FOLDER))
    assert found["tokens seen"][0] > 320
    assert set(found["tokens visible"]) == {320.0}


def test_applications_are_short_and_all_run() -> None:
    files = {path.stem: path for path in FOLDER.glob("*.py")}
    assert files.keys() == SMALL.keys() | HELPERS
    assert all(len(path.read_text().splitlines()) <= 150 for path in files.values())
