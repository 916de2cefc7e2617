from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig

from streamingllm.errors import ModelLoadError
from streamingllm.models import Checkpoint


def checkpoint_of(folder: Path) -> Checkpoint:
    return Checkpoint(folder, gguf_file=None, source="test")


def test_weights_keep_their_dtype_unless_another_is_asked_for(tiny_folder: Path) -> None:
    checkpoint = checkpoint_of(tiny_folder)
    stored = checkpoint.read_model(dtype=None)
    assert stored.dtype is torch.bfloat16
    assert checkpoint.read_model(torch.float64).dtype is torch.float64


def test_reading_is_silent(tiny_gguf: Path, capfd: pytest.CaptureFixture[str]) -> None:
    checkpoint = Checkpoint(tiny_gguf.parent, tiny_gguf.name, source="test")
    checkpoint.read_tokenizer(checkpoint.read_model(dtype=None).config)
    assert capfd.readouterr() == ("", "")


def test_a_gguf_names_its_special_tokens(tiny_gguf: Path) -> None:
    checkpoint = Checkpoint(tiny_gguf.parent, tiny_gguf.name, source="test")
    tokenizer = checkpoint.read_tokenizer(checkpoint.read_model(dtype=None).config)
    assert tokenizer.bos_token == "<|im_start|>"
    assert tokenizer.eos_token == "<|im_end|>"


def test_missing_weights_are_not_made_up(tiny_folder: Path) -> None:
    path = tiny_folder / "model.safetensors"
    weights = load_file(path)
    del weights["model.layers.0.mlp.up_proj.weight"]
    save_file(weights, path, metadata={"format": "pt"})
    message = "1 weights of LlamaForCausalLM are missing, such as model"
    with pytest.raises(ModelLoadError, match=message):
        checkpoint_of(tiny_folder).read_model(dtype=None)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("model_type", "unheard-of"), ("model_type", "t5"), ("hidden_size", 64)],
)
def test_a_config_that_does_not_fit_is_one_line(
    tiny_folder: Path, setting: str, value: object
) -> None:
    path = tiny_folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), setting: value}))
    with pytest.raises(ModelLoadError, match="cannot be read as a decoder") as caught:
        checkpoint_of(tiny_folder).read_model(dtype=None)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("file_name", ["model.safetensors", "config.json"])
def test_a_truncated_file_is_one_line(tiny_folder: Path, file_name: str) -> None:
    path = tiny_folder / file_name
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelLoadError, match="cannot be read as a decoder") as caught:
        checkpoint_of(tiny_folder).read_model(dtype=None)
    assert "\n" not in str(caught.value)


def test_a_truncated_gguf_is_one_line(tiny_gguf: Path) -> None:
    tiny_gguf.write_bytes(tiny_gguf.read_bytes()[:-1000])
    checkpoint = Checkpoint(tiny_gguf.parent, tiny_gguf.name, source="test")
    with pytest.raises(ModelLoadError, match=r"has 118,616 bytes of 119,616") as caught:
        checkpoint.read_model(dtype=None)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_tokenizer_is_refused(tiny_folder: Path) -> None:
    for path in tiny_folder.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(ModelLoadError, match="has no usable tokenizer"):
        checkpoint_of(tiny_folder).read_tokenizer(LlamaConfig())
