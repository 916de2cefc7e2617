from __future__ import annotations

import json
from pathlib import Path

import pytest

from streamingllm.graphs import decode_step
from streamingllm.kernels import native
from tests.cli.terminal import run_command
from tests.conftest import link_kernels
from tests.reference.tiny_folder import write_tiny_folder

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def cache_dir(tmp_path: Path) -> Path:
    """A cache folder in which there are kernels, but no compiled steps."""
    if not native.load():
        pytest.skip("needs a C++ compiler and a processor with AVX2")
    link_kernels(tmp_path / "cache")
    return tmp_path / "cache"


@pytest.mark.filterwarnings("ignore:No complete tensor found")  # views of joined weights
def test_steps_are_compiled_once_and_found_again(
    cache_dir: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = write_tiny_folder(tmp_path / "tiny", hidden_size=64, intermediate_size=96)
    command = ("compile", "--model", str(model), "--cache-dir", str(cache_dir), "--json", "-")
    assert run_command(*command) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["native_kernels"] is True
    assert set(found["compile_seconds"]) == {"one_stream", "many_streams"}
    assert found["config"]["model"] == str(model)
    kept = {path: path.stat().st_mtime_ns for path in (cache_dir / "graphs").glob("*.pt2")}
    assert len(kept) == 2

    monkeypatch.delattr(decode_step, "Compilation")  # nothing more is to be compiled
    assert run_command(*command) == 0
    assert {path: path.stat().st_mtime_ns for path in (cache_dir / "graphs").glob("*.pt2")} == kept


def test_a_model_without_a_decode_step_is_refused_in_one_line(
    cache_dir: Path, tiny_folder: Path, capsys: Capture
) -> None:
    command = ("compile", "--model", str(tiny_folder), "--cache-dir", str(cache_dir))
    assert run_command(*command) == 2
    printed = capsys.readouterr()
    (error,) = [line for line in printed.err.splitlines() if line.startswith("error: ")]
    assert f"{tiny_folder}: its decode step cannot be compiled here" in error
    assert not list(cache_dir.glob("graphs/*.pt2"))
