"""Shards are packed one tensor at a time, and packed weights are not read a second time."""

from __future__ import annotations

import json
import weakref
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import MixtralConfig, MixtralForCausalLM

from streamingllm import load_model
from streamingllm.errors import ModelLoadError
from streamingllm.kernels.packing import unpack_weight
from streamingllm.models.quantize import quantize_weight
from streamingllm.models.shards import Shards
from tests.models.quantized_folders import gptq, save_folder, write_quantized
from tests.models.test_formats import gptq_settings, load, packed_layers
from tests.reference.tiny_llama import new_llama

SIZES = {"vocab_size": 272, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4}


class Watched:
    """Count the tensors that have been read and are still alive."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names: list[str] = []
        self.most_alive = 0
        self._alive: list[weakref.ref[torch.UntypedStorage]] = []
        read = Shards.read

        def watched(shards: Shards, name: str) -> Tensor:
            tensor = read(shards, name)
            self.names.append(name)
            if tensor.ndim > 1:
                self._alive.append(weakref.ref(tensor.untyped_storage()))
                self.most_alive = max(self.most_alive, sum(r() is not None for r in self._alive))
            return tensor

        monkeypatch.setattr(Shards, "read", watched)


def write_half(folder: Path, *, tied: bool = False) -> dict[str, Tensor]:
    """Write a tiny Llama in bfloat16; return its weights."""
    model = new_llama(**SIZES, tie_word_embeddings=tied).bfloat16()
    tensors = {name: tensor.clone() for name, tensor in model.named_parameters()}
    save_folder(folder, model, tensors, None)
    return {name: tensor.float() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("quantize", ["int8", "int4"])
@pytest.mark.parametrize("tied", [False, True])
def test_half_precision_shards_are_rounded_as_whole_models_are(
    quantize: str, tied: bool, tmp_path: Path
) -> None:
    weights = write_half(tmp_path, tied=tied)
    model = load(tmp_path, quantize=quantize, dtype="float32", calibration_tokens=0).model
    layers = packed_layers(model)
    assert len(layers) == 4 * 7 + 1
    for name, layer in layers.items():
        bits = 8 if name == "lm_head" else int(quantize[3:])
        expected, _ = quantize_weight(weights[f"{name}.weight"], bits)
        assert torch.equal(layer.weight, unpack_weight(*expected.tensors)), name
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, weights[name]), name


def test_no_second_weight_is_alive_while_one_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_half(tmp_path)
    watched = Watched(monkeypatch)
    load(tmp_path, quantize="int8", dtype="float32")
    assert len(watched.names) == 4 * 9 + 3
    # The weight that is read, the one before it in a frame of transformers, and the embedding,
    # which stays.
    assert watched.most_alive <= 3


@pytest.mark.parametrize("quantize", ["int4", "native"])
def test_packed_weights_are_not_read_again(
    quantize: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_quantized(tmp_path, gptq, gptq_settings())
    first = load(tmp_path, quantize=quantize)
    watched = Watched(monkeypatch)
    second = load(tmp_path, quantize=quantize)
    assert not [name for name in watched.names if name.endswith(("qweight", "scales"))]
    assert "model.embed_tokens.weight" in watched.names
    assert second.rounding_error == first.rounding_error
    ids = torch.arange(40)[None]
    assert torch.equal(first.model(ids).logits, second.model(ids).logits)


def test_generation_settings_are_read(tmp_path: Path) -> None:
    write_half(tmp_path)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [7, 9]}))
    assert load(tmp_path, quantize="int8").eos_token_ids >= {7, 9}


def test_experts_are_merged_as_transformers_does(tmp_path: Path) -> None:
    config = MixtralConfig(
        vocab_size=272,
        hidden_size=64,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=2,
        max_position_embeddings=64,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = MixtralForCausalLM(config).eval()
    model.save_pretrained(tmp_path)
    files = Shards(tmp_path)
    save_folder(tmp_path / "again", model, {n: files.read(n) for n in files.names}, None)
    loaded = load(tmp_path / "again", quantize="int8", dtype="float32").model
    for name, parameter in loaded.named_parameters():
        assert torch.equal(parameter, model.get_parameter(name)), name
    assert len(packed_layers(loaded)) == 5


def test_progress_counts_the_bytes_of_the_files(tmp_path: Path) -> None:
    write_half(tmp_path)
    seen: list[tuple[str, int, int]] = []
    load_model(
        tmp_path,
        quantize="int8",
        device="cpu",
        cache_dir=tmp_path / "cache",
        progress=lambda *report: seen.append(report),
    )
    total = Shards(tmp_path).total_bytes
    assert seen[0] == ("quantize", 0, total)
    assert seen[-1] == ("quantize", total, total)
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)


def test_a_missing_weight_is_named(tmp_path: Path) -> None:
    model = new_llama(**SIZES).bfloat16()
    tensors = {name: tensor.clone() for name, tensor in model.named_parameters()}
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_folder(tmp_path, model, tensors, None)
    with pytest.raises(ModelLoadError, match=r"1 weights .* are missing, such as model\.layers\.1"):
        load(tmp_path, quantize="int8")


def test_a_weight_of_another_shape_is_named(tmp_path: Path) -> None:
    model = new_llama(**SIZES).bfloat16()
    tensors = {name: tensor.clone() for name, tensor in model.named_parameters()}
    tensors["model.layers.1.mlp.up_proj.weight"] = torch.zeros(64, 64)
    save_folder(tmp_path, model, tensors, None)
    with pytest.raises(ModelLoadError, match=r"up_proj\.weight has shape \(64, 64\)"):
        load(tmp_path, quantize="int8")
