from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("ray")
pytestmark = pytest.mark.slow
CHECKOUT = Path(__file__).parents[2]


def test_killed_engines_lose_and_double_nothing(tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    command = [
        *(sys.executable, "-m", "benchmarks.cluster_kills", "--json", str(result)),
        *("--sessions", "6", "--kills", "2", "--think-seconds", "1", "--no-scales"),
    ]
    path = os.pathsep.join((str(CHECKOUT / "src"), str(CHECKOUT)))
    subprocess.run(command, check=True, cwd=CHECKOUT, env={**os.environ, "PYTHONPATH": path})
    found = json.loads(result.read_text())
    assert found["num_kills"] == 2
    assert found["num_turns"] >= 6
    assert found["sessions_stored_otherwise"] == []
    assert found["num_answers_unlike_the_unbroken_run"] == 0
