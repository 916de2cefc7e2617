"""Facts read from configurations and headers equal those of the loaded model."""

from __future__ import annotations

from pathlib import Path

import gguf
import pytest
import torch

from streamingllm.config import StreamConfig
from streamingllm.errors import ModelLoadError
from streamingllm.evaluation.checkpoint_inspection import inspect_checkpoint
from streamingllm.evaluation.inspection import inspect_model
from streamingllm.models import Checkpoint, LanguageModel, load_model, locate_checkpoint
from tests.models.tiny_package import write_gguf
from tests.reference.tiny_folder import write_tiny_folder

CONFIG = StreamConfig(4, 12)
CPU = torch.device("cpu")


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights cannot be read."""

    def refuse(*args: object) -> None:
        raise AssertionError("the weights are read")

    monkeypatch.setattr(Checkpoint, "read_model", refuse)


def test_the_packaged_model(default_model: LanguageModel) -> None:
    checkpoint = locate_checkpoint("smollm2-135m-instruct", weights=False)
    assert inspect_checkpoint(checkpoint, CONFIG) == inspect_model(default_model.model, CONFIG)


@pytest.mark.parametrize("dtype", ["auto", "float32", "bfloat16", "float64"])
@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float64])
def test_a_folder(dtype: str, stored: torch.dtype, tmp_path: Path) -> None:
    write_tiny_folder(tmp_path)
    lm = load_model(tmp_path, dtype=str(stored))
    lm.model.save_pretrained(tmp_path)
    loaded = load_model(tmp_path, dtype=dtype, device="cpu")
    wanted = None if dtype == "auto" else getattr(torch, dtype)
    facts = inspect_checkpoint(locate_checkpoint(tmp_path), CONFIG, dtype=wanted, device=CPU)
    assert facts == inspect_model(loaded.model, CONFIG)


@pytest.mark.parametrize("has_vocabulary_size", [True, False])
def test_a_gguf_file(has_vocabulary_size: bool, tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    write_gguf(path, has_vocabulary_size=has_vocabulary_size)
    facts = inspect_checkpoint(locate_checkpoint(path), CONFIG)
    assert facts == inspect_model(load_model(path, device="cpu").model, CONFIG)


@pytest.mark.usefixtures("unread")
def test_weights_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    write_gguf(path)
    assert inspect_checkpoint(locate_checkpoint(path), CONFIG).family == "llama"
    folder = write_tiny_folder(tmp_path / "folder")
    assert inspect_checkpoint(locate_checkpoint(folder), CONFIG).family == "llama"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.usefixtures("unread")
def test_files_that_are_cut_short_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    write_gguf(path)
    reader = gguf.GGUFReader(path)
    last = reader.tensors[-1]
    path.write_bytes(path.read_bytes()[: last.data_offset + last.n_bytes - 1])
    with pytest.raises(ModelLoadError, match=r"bytes of .*; fetch the file again"):
        inspect_checkpoint(locate_checkpoint(path), CONFIG)
    folder = write_tiny_folder(tmp_path / "folder")
    cut(folder / "model.safetensors")
    with pytest.raises(ModelLoadError, match=r"bytes of .*; fetch the file again"):
        inspect_checkpoint(locate_checkpoint(folder), CONFIG)


def test_a_missing_part_is_refused(tmp_path: Path) -> None:
    folder = write_tiny_folder(tmp_path)
    load_model(folder).model.save_pretrained(folder, max_shard_size="20KB")
    (folder / "model.safetensors").unlink(missing_ok=True)
    parts = sorted(folder.glob("model-*.safetensors"))
    assert len(parts) > 1
    assert inspect_checkpoint(locate_checkpoint(folder), CONFIG).family == "llama"
    parts[-1].unlink()
    with pytest.raises(ModelLoadError, match="No such file"):
        inspect_checkpoint(locate_checkpoint(folder), CONFIG)


def test_no_decoder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "no-such-family"}')
    with pytest.raises(ModelLoadError, match="cannot be read as a decoder"):
        inspect_checkpoint(locate_checkpoint(tmp_path), CONFIG)
