"""Flattened tensor subclasses of torchao, and the experts of gpt-oss."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GptOssConfig, GptOssForCausalLM

from streamingllm.errors import ModelLoadError
from tests.models.quantized_folders import Array, Writing, save_folder
from tests.models.test_formats import load, packed_layers
from tests.reference.tiny_llama import new_llama

E2M1 = {0: 0.0, 1: 0.5, 2: 1.0, 3: 1.5, 4: 2.0, 5: 3.0, 6: 4.0, 7: 6.0}


def subclass(
    writing: Writing, kind: str, shape: tuple[int, ...], is_simple: bool
) -> tuple[dict[str, Any], Array]:
    """Return the attributes of a torchao tensor and its weight."""
    rows, columns = shape
    random, groups = writing.random, columns // 32
    if kind == "Int8Tensor":
        codes, scales = random.integers(-128, 128, (rows, columns)), writing.scales(rows, 1)
        tensors = {"qdata": torch.tensor(codes, dtype=torch.int8), "scale": scales}
        return tensors, scales.double().numpy() * codes
    codes = random.integers(-8, 8, (rows, columns))
    scales = writing.scales(rows, groups)
    wide = np.repeat(scales.double().numpy(), 32, 1)
    if kind == "IntxUnpackedToInt8Tensor":
        zeros = random.integers(-8, 8, (rows, groups))
        tensors = {
            "qdata": torch.tensor(codes, dtype=torch.int8),
            "scale": scales,
            "zero_point": torch.tensor(zeros, dtype=torch.int8),
        }
        return tensors, wide * (codes - np.repeat(zeros, 32, 1))
    nibbles = codes.astype(np.uint8) & 15
    steps = (
        random.integers(-1, 3, (rows, groups)) if is_simple else random.integers(-60, 60, groups)
    )
    rounded = torch.tensor(scales.double().numpy() * 8 * steps).to(writing.dtype)
    offsets = rounded.double().numpy()
    tensors = {
        "qdata": torch.from_numpy(nibbles[:, ::2] | nibbles[:, 1::2] << 4).view(torch.int8),
        "scale": scales.T.contiguous(),
        "zero_point": rounded.T.contiguous(),
    }
    return tensors, wide * codes + np.repeat(offsets, 32, 1)


def write_torchao(folder: Path, kind: str, *, is_simple: bool = True) -> Any:
    """Write a tiny Llama; return the dense model it stands for."""
    model = new_llama(vocab_size=272, hidden_size=64, intermediate_size=128)
    writing = Writing(np.random.default_rng(3))
    tensors: dict[str, torch.Tensor] = {}
    metadata: dict[str, str] = {}
    for name, parameter in model.named_parameters():
        layer, _, _ = name.rpartition(".")
        if "proj" not in layer:
            tensors[name], metadata[name] = parameter.clone(), json.dumps({"_type": "Tensor"})
            continue
        parts, weight = subclass(writing, kind, parameter.shape, is_simple)
        parameter.copy_(torch.from_numpy(weight))
        tensors |= {f"{layer}._weight_{part}": tensor for part, tensor in parts.items()}
        described = {"_type": kind, "_data": {}, "_tensor_data_names": list(parts)}
        metadata[name] = json.dumps(described)
    metadata["tensor_names"] = json.dumps(list(dict(model.named_parameters())))
    save_folder(folder, model, tensors, {"quant_method": "torchao"}, metadata)
    return model


@pytest.mark.parametrize(
    ("kind", "is_simple", "bits"),
    [
        ("Int8Tensor", True, 8),
        ("IntxUnpackedToInt8Tensor", True, 8),
        ("Int4Tensor", True, 4),
        ("Int4Tensor", False, 8),
    ],
)
def test_subclasses_are_read_exactly_and_packed_without_loss(
    kind: str, is_simple: bool, bits: int, tmp_path: Path
) -> None:
    expected = write_torchao(tmp_path, kind, is_simple=is_simple)
    dense = load(tmp_path, quantize="none", dtype="float32").model
    for name, parameter in expected.named_parameters():
        assert torch.equal(dense.get_parameter(name), parameter), name
    layers = packed_layers(load(tmp_path, dtype="float32").model)
    assert len(layers) == 14
    for name, layer in layers.items():
        assert torch.equal(layer.weight, expected.get_submodule(name).weight), name
        assert layer.num_bits == bits


def test_other_subclasses_are_refused_by_name(tmp_path: Path) -> None:
    write_torchao(tmp_path, "Int4TilePackedTo4dTensor")
    with pytest.raises(ModelLoadError, match="quant_type='Int4TilePackedTo4dTensor' is not among"):
        load(tmp_path)


def write_gpt_oss(folder: Path) -> GptOssForCausalLM:
    """Write a tiny gpt-oss with MXFP4 experts; return the dense model it stands for."""
    config = GptOssConfig(
        vocab_size=272,
        hidden_size=64,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        num_local_experts=3,
        num_experts_per_tok=2,
        sliding_window=16,
        max_position_embeddings=64,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = GptOssForCausalLM(config).eval().requires_grad_(False)
    random = np.random.default_rng(5)
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        if name.endswith(("experts.gate_up_proj", "experts.down_proj")):
            experts, columns, rows = parameter.shape
            nibbles = random.integers(0, 16, (experts, rows, columns // 32, 32))
            exponents = random.integers(118, 124, (experts, rows, columns // 32))
            numbers = np.vectorize(lambda n: E2M1[n & 7] * (-1 if n & 8 else 1))(nibbles)
            weight = (numbers * 2.0 ** (exponents - 127)[..., None]).reshape(experts, rows, columns)
            parameter.copy_(torch.from_numpy(weight).transpose(1, 2))
            pairs = (nibbles[..., ::2] | nibbles[..., 1::2] << 4).astype(np.uint8)
            del tensors[name]
            tensors[f"{name}_blocks"] = torch.from_numpy(pairs)
            tensors[f"{name}_scales"] = torch.from_numpy(exponents.astype(np.uint8))
    settings = {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn"]}
    save_folder(folder, model, tensors, settings)
    return model


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_experts_of_gpt_oss_lose_nothing_in_half_precision(dtype: str, tmp_path: Path) -> None:
    expected = write_gpt_oss(tmp_path)
    model = load(tmp_path, quantize="none", dtype=dtype).model
    experts = [name for name, _ in expected.named_parameters() if ".experts." in name]
    assert len(experts) == 8
    for name in experts:
        found = model.get_parameter(name)
        assert found.dtype is getattr(torch, dtype)
        if "bias" not in name:
            assert torch.equal(found.float(), expected.get_parameter(name)), name
    if dtype == "float32":
        ids = torch.arange(30)[None]
        torch.testing.assert_close(model(ids).logits, expected(ids).logits, rtol=1e-5, atol=1e-5)
