from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from streamingllm.models import hub
from streamingllm.models.hub import is_hub_id
from tests.models.tiny_hub import COMMIT, MODEL, serve_model

# The hub's client reads its settings when it is imported: each hub needs a process of its own.
_HUB_SCRIPT = """
import sys
from streamingllm.errors import ModelLoadError
from streamingllm.models.hub import hub_checkpoint
stages = []
try:
    weights = sys.argv[2] == "1"
    checkpoint = hub_checkpoint(sys.argv[1], lambda *event: stages.append(event), weights=weights)
    print(checkpoint.source, stages[-1] if stages else None)
except ModelLoadError as error:
    print("ModelLoadError:", error)
"""


def ask_hub(address: str, cache: Path, model: str = MODEL, *, weights: bool = True) -> str:
    """Run `hub_checkpoint` against a hub; return what it said."""
    settings = {
        "HF_ENDPOINT": address,
        "HF_HUB_CACHE": str(cache),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "NO_PROXY": "127.0.0.1",
    }
    result = subprocess.run(
        [sys.executable, "-c", _HUB_SCRIPT, model, str(int(weights))],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stderr == ""
    (said,) = result.stdout.splitlines()
    return said


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "model.safetensors", "pytorch_model.bin"):
        (folder / name).write_text(f"{name}\n" * 1000)
    return folder


@pytest.fixture
def silent_hub() -> Iterator[str]:
    """A hub that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_a_model_comes_from_the_hub_then_from_its_cache(
    model_folder: Path, silent_hub: str, tmp_path: Path
) -> None:
    with serve_model(model_folder) as (address, fetched):
        said = ask_hub(address, tmp_path / "hub")
    total_bytes = sum(path.stat().st_size for path in model_folder.glob("[!p]*"))
    assert said == f"hub:{MODEL}@{COMMIT} ('fetch', {total_bytes}, {total_bytes})"
    assert sorted(fetched) == ["config.json", "model.safetensors", "tokenizer.json"]

    said = ask_hub(silent_hub, tmp_path / "hub")
    assert said == f"hub:{MODEL}@{COMMIT} None"


def test_a_configuration_is_fetched_without_weights(model_folder: Path, tmp_path: Path) -> None:
    with serve_model(model_folder) as (address, fetched):
        said = ask_hub(address, tmp_path / "hub", weights=False)
    assert said.startswith(f"hub:{MODEL}@{COMMIT} ")
    assert sorted(fetched) == ["config.json", "tokenizer.json"]


def test_a_hub_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, answers = threading.Event(), threading.Event()

    def model_info(*args: object, timeout: float) -> None:
        asked.set()
        answers.wait()

    assert hub._PROBE_SECONDS <= 3
    monkeypatch.setattr(hub, "_PROBE_SECONDS", 0.01)
    monkeypatch.setattr(HfApi, "model_info", model_info)
    assert not hub._hub_answers(MODEL)
    assert asked.wait(60)
    assert not answers.is_set()  # it is asked still
    answers.set()


def test_a_silent_hub_is_one_line(silent_hub: str, tmp_path: Path) -> None:
    said = ask_hub(silent_hub, tmp_path / "hub")
    assert said.startswith(f"ModelLoadError: {MODEL}: cannot be fetched from the hub; the hub")


def test_an_unknown_model_is_one_line(model_folder: Path, tmp_path: Path) -> None:
    with serve_model(model_folder) as (address, _):
        said = ask_hub(address, tmp_path / "hub", "tests/unknown")
    assert said.startswith("ModelLoadError: tests/unknown: cannot be fetched from the hub (")


def test_a_model_without_safetensors_is_refused(model_folder: Path, tmp_path: Path) -> None:
    (model_folder / "model.safetensors").unlink()
    with serve_model(model_folder) as (address, _):
        said = ask_hub(address, tmp_path / "hub")
    assert "has no config.json or no safetensors weights" in said


@pytest.mark.parametrize(
    ("name", "expected"),
    [("org/name", True), ("o-1/n_2.3", True), ("name", False), ("a/b/c", False), ("a b/c", False)],
)
def test_hub_ids_have_two_parts(name: str, expected: bool) -> None:
    assert is_hub_id(name) is expected
