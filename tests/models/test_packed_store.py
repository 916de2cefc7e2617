"""Packed weights are made once, kept, and made anew when the file is damaged."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path

import pytest
import torch
from torch import nn

from streamingllm.errors import ConfigError
from streamingllm.models import LanguageModel, load_model, packed_store
from streamingllm.models.quantize import QuantizedLinear, quantization_of
from tests.reference.tiny_folder import write_tiny_folder


def packed_layers(model: nn.Module) -> dict[str, QuantizedLinear]:
    return {n: m for n, m in model.named_modules() if isinstance(m, QuantizedLinear)}


def load(path: Path, cache: Path, quantize: str = "int4", **options: str) -> LanguageModel:
    return load_model(path, quantize=quantize, cache_dir=cache, device="cpu", **options)


@pytest.mark.parametrize("quantize", ["int4", "int8"])
def test_weights_are_packed_once(tiny_gguf: Path, tmp_path: Path, quantize: str) -> None:
    stages: list[str] = []

    def note(stage: str, done_bytes: int, total_bytes: int) -> None:
        assert 0 <= done_bytes <= total_bytes
        stages.append(stage)

    cache = tmp_path / "cache"
    first = load_model(tiny_gguf, quantize=quantize, cache_dir=cache, device="cpu", progress=note)
    assert "quantize" in stages
    (kept,) = (cache / "quantized").glob("*.safetensors")
    stamp = kept.stat().st_mtime_ns
    stages.clear()
    second = load_model(tiny_gguf, quantize=quantize, cache_dir=cache, device="cpu", progress=note)
    assert "quantize" not in stages
    assert kept.stat().st_mtime_ns == stamp
    assert quantization_of(second.model) == quantize
    ids = torch.arange(1, 9)[None]
    assert torch.equal(first.model(ids).logits, second.model(ids).logits)


def test_a_gguf_file_loses_nothing_in_its_own_bits(tiny_gguf: Path, tmp_path: Path) -> None:
    dense = load_model(tiny_gguf, dtype="float32", device="cpu").model
    packed = packed_layers(load(tiny_gguf, tmp_path).model)
    assert len(packed) == 7  # the head of 261 rows does not fit tiles of 16
    for name, layer in packed.items():
        assert torch.equal(layer.weight, dense.get_submodule(name).weight), name


@pytest.mark.parametrize("damage", ["truncated", "garbage", "empty"])
def test_a_damaged_file_is_made_anew(tiny_gguf: Path, tmp_path: Path, damage: str) -> None:
    expected = load(tiny_gguf, tmp_path).model
    (kept,) = (tmp_path / "quantized").glob("*.safetensors")
    whole = kept.read_bytes()
    content = {"truncated": whole[:-100], "garbage": b"\xff" * 500, "empty": b""}[damage]
    kept.write_bytes(content)
    model = load(tiny_gguf, tmp_path).model
    assert kept.read_bytes() == whole
    for name, layer in packed_layers(model).items():
        assert torch.equal(layer.weight, expected.get_submodule(name).weight)


def test_other_weights_in_the_same_place_are_noticed(tiny_folder: Path, tmp_path: Path) -> None:
    before = load(tiny_folder, tmp_path).model
    other = load_model(tiny_folder, device="cpu").model
    for parameter in other.parameters():
        parameter.data *= 2
    other.save_pretrained(tiny_folder)
    after = load(tiny_folder, tmp_path).model
    name = "model.layers.0.mlp.up_proj"
    new, old = packed_layers(after)[name].weight, packed_layers(before)[name].weight
    torch.testing.assert_close(new, 2 * old, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "auto"])
def test_the_dtype_is_that_of_all_else(tiny_folder: Path, tmp_path: Path, dtype: str) -> None:
    model = load(tiny_folder, tmp_path, dtype=dtype).model
    expected = torch.bfloat16 if dtype == "auto" else getattr(torch, dtype)
    assert model.dtype is expected
    assert {p.dtype for p in model.parameters()} == {expected}
    assert not any(p.requires_grad for p in model.parameters())
    assert model(torch.arange(1, 70)[None]).logits.dtype is expected
    assert model(torch.arange(1, 3)[None]).logits.dtype is expected


@pytest.mark.parametrize("num_tokens", [1, 70])
def test_biases_have_the_dtype_of_all_else(tmp_path: Path, num_tokens: int) -> None:
    write_tiny_folder(tmp_path / "tiny", attention_bias=True)
    model = load(tmp_path / "tiny", tmp_path, dtype="bfloat16").model
    assert model(torch.arange(1, num_tokens + 1)[None]).logits.dtype is torch.bfloat16


def test_a_bad_word_is_refused_before_anything_is_read() -> None:
    with pytest.raises(
        ConfigError,
        match="quantize='int2' is unknown; choose one of auto, none, native",
    ):
        load_model("organisation/model", quantize="int2")


def full_disk(*args: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("reason", ["a file is in the place of the folder", "No space left"])
def test_a_folder_that_cannot_be_written_is_one_line_in_the_log(
    reason: str,
    tiny_gguf: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    expected = load(tiny_gguf, tmp_path / "good").model
    bad = tmp_path / "bad"
    bad.mkdir()
    if reason == "No space left":
        monkeypatch.setattr(packed_store, "write_tensors", full_disk)
    else:
        (bad / "quantized").write_text("a file")
    with caplog.at_level(logging.WARNING, "streamingllm"):
        model = load(tiny_gguf, bad).model
    (record,) = caplog.records
    assert record.getMessage().startswith("packed weights are not kept for the next start: ")
    assert "\n" not in record.getMessage()
    ids = torch.arange(1, 9)[None]
    assert torch.equal(model(ids).logits, expected(ids).logits)
    assert not list(bad.rglob("*.safetensors"))


def test_the_default_model_loses_nothing_but_in_its_head(default_model: LanguageModel) -> None:
    cache_dir = os.environ.get("STREAMINGLLM_CACHE")
    quantised = load_model(quantize="int4", dtype="float32", device="cpu", cache_dir=cache_dir)
    layers = packed_layers(quantised.model)
    head = layers.pop("lm_head")
    assert len(layers) == 30 * 7
    for name, layer in layers.items():
        assert torch.equal(layer.weight, default_model.model.get_submodule(name).weight), name
    name = "model.embed_tokens.weight"
    table = default_model.model.get_parameter(name)
    assert torch.equal(quantised.model.get_parameter(name), table)
    error = (head.weight - table).abs().max() / table.abs().max()
    assert error < 1 / 127
    ids = default_model.encode("The capital of France is")[None]
    with torch.no_grad():
        ours, exact = quantised.model(ids).logits, default_model.model(ids).logits
    torch.testing.assert_close(ours.log_softmax(-1), exact.log_softmax(-1), rtol=0, atol=0.1)
    assert torch.equal(ours.argmax(-1), exact.argmax(-1))
