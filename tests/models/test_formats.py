"""Quantised checkpoints of other makers are read exactly, and packed without loss or refused."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from streamingllm import LanguageModel, Stream, StreamConfig, load_model
from streamingllm.errors import ModelLoadError
from streamingllm.models.quantize import QuantizedLinear
from tests.models import quantized_folders as folders
from tests.reference.rounding import assert_same_logits

NUM_LAYERS = 2 * 7


@dataclass(frozen=True)
class Case:
    """A format and its settings; `bits` of each packed layer, 0 if no layout can hold it."""

    name: str
    writer: folders.Writer
    settings: dict[str, Any]
    bits: int
    choices: dict[str, Any] = field(default_factory=dict)
    reason: str = ""


def gptq_settings(**fields: Any) -> dict[str, Any]:
    return {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": False, **fields}


COMPRESSED = {"quant_method": "compressed-tensors", "format": "pack-quantized"}
FP8 = {"quant_method": "fp8", "weight_block_size": [48, 48]}
STEPS = "FP8 numbers have steps that grow"
WILD = {"symmetric": False}
BFLOAT16 = {"dtype": torch.bfloat16}
CASES = [
    Case("gptq", folders.gptq, gptq_settings(), 4),
    Case("gptq-64", folders.gptq, gptq_settings(group_size=64), 4, {"group_size": 64}),
    Case("gptq-asymmetric", folders.gptq, gptq_settings(sym=False), 8, WILD),
    Case("gptq-v2", folders.gptq_v2, gptq_settings(checkpoint_format="gptq_v2"), 8, WILD),
    Case("gptq-8", folders.gptq, gptq_settings(bits=8), 8, {"num_bits": 8}),
    Case("gptq-2", folders.gptq, gptq_settings(bits=2), 4, {"num_bits": 2} | WILD),
    Case("act-order", folders.act_order, gptq_settings(desc_act=True), 0, {}, "act-order"),
    Case("awq", folders.awq, {"quant_method": "awq", "bits": 4, "version": "gemm"}, 8, WILD),
    Case("awq-middle", folders.awq, {"quant_method": "awq", "bits": 4, "version": "GEMM"}, 4),
    Case("compressed", folders.compressed, COMPRESSED, 4, BFLOAT16),
    Case("compressed-zeros", folders.compressed, COMPRESSED, 8, WILD | BFLOAT16),
    Case("compressed-3", folders.compressed, COMPRESSED, 4, {"num_bits": 3} | WILD),
    Case("compressed-8", folders.compressed, COMPRESSED, 8, {"num_bits": 8}),
    Case(
        "compressed-float32",
        folders.compressed,
        COMPRESSED,
        0,
        {"dtype": torch.float32},
        "float32 scales have no exact float16",
    ),
    Case(
        "compressed-16",
        folders.compressed,
        COMPRESSED,
        0,
        {"group_size": 16},
        "groups of 16 columns are no multiple of 32",
    ),
    Case(
        "compressed-int8",
        folders.compressed_int8,
        {**COMPRESSED, "format": "int-quantized"},
        8,
        BFLOAT16,
    ),
    Case(
        "compressed-fp8",
        folders.float8_rows,
        {**COMPRESSED, "format": "float-quantized"},
        0,
        reason=STEPS,
    ),
    Case("fp8-blocks", folders.float8_blocks, FP8, 0, reason=STEPS),
    Case("fp8-tensor", folders.float8_tensor, {"quant_method": "fp8"}, 0, reason=STEPS),
    Case("fbgemm", folders.float8_rows, {"quant_method": "fbgemm_fp8"}, 0, reason=STEPS),
]
PACKED = [case for case in CASES if case.bits]
REFUSED = [case for case in CASES if not case.bits]


def named(case: Case) -> str:
    return case.name


def packed_layers(model: nn.Module) -> dict[str, QuantizedLinear]:
    return {n: m for n, m in model.named_modules() if isinstance(m, QuantizedLinear)}


def load(folder: Path, **options: Any) -> LanguageModel:
    return load_model(folder, device="cpu", cache_dir=folder / "cache", **options)


def write(case: Case, folder: Path) -> nn.Module:
    return folders.write_quantized(folder, case.writer, case.settings, **case.choices)


@pytest.mark.parametrize("case", CASES, ids=named)
def test_weights_are_read_exactly(case: Case, tmp_path: Path) -> None:
    expected = write(case, tmp_path)
    model = load(tmp_path, quantize="none", dtype="float32").model
    for name, parameter in expected.named_parameters():
        assert torch.equal(model.get_parameter(name), parameter), name
    ids = torch.arange(40)[None]
    assert torch.equal(model(ids).logits, expected(ids).logits)


@pytest.mark.parametrize("case", PACKED, ids=named)
def test_packed_weights_lose_nothing(case: Case, tmp_path: Path) -> None:
    expected = write(case, tmp_path)
    lm = load(tmp_path, dtype="float32")  # `auto` keeps the bits of a quantised checkpoint
    layers = packed_layers(lm.model)
    assert len(layers) == NUM_LAYERS
    for name, layer in layers.items():
        assert torch.equal(layer.weight, expected.get_submodule(name).weight), name
        assert layer.num_bits == case.bits
    assert lm.rounding_error == 0.0
    ids = torch.arange(40)[None]
    assert_same_logits(lm.model(ids).logits, expected(ids).logits)
    stream = Stream(lm.model, StreamConfig(num_sink_tokens=2, window_size=16))
    truth = Stream(expected, StreamConfig(num_sink_tokens=2, window_size=16))
    assert_same_logits(stream.feed(ids), truth.feed(ids))


@pytest.mark.parametrize("case", REFUSED, ids=named)
def test_what_no_layout_holds_is_refused_by_name(case: Case, tmp_path: Path) -> None:
    write(case, tmp_path)
    with pytest.raises(ModelLoadError, match=case.reason) as refused:
        load(tmp_path)
    message = str(refused.value)
    assert message.startswith("quantize='native' cannot hold model.layers.0.")
    assert "choose quantize='none'" in message
    assert "\n" not in message


@pytest.mark.parametrize("case", [CASES[0], CASES[2], *REFUSED[:1], *REFUSED[-3:]], ids=named)
def test_other_bits_round_the_dense_weights(case: Case, tmp_path: Path) -> None:
    expected = write(case, tmp_path)
    lm = load(tmp_path, quantize="int8", dtype="float32")
    layers = packed_layers(lm.model)
    assert len(layers) == NUM_LAYERS + 1  # the head too
    squares, size = 0.0, 0.0
    for name, layer in layers.items():
        weight = expected.get_parameter(f"{name}.weight")
        step = weight.abs().amax() / 127
        assert bool(((layer.weight - weight).abs() <= 0.51 * step).all())
        squares += float((layer.weight - weight).square().sum())
        size += float(weight.square().sum())
    assert lm.rounding_error == pytest.approx((squares / size) ** 0.5, rel=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"quant_method": "bitsandbytes"}, "quant_method='bitsandbytes' is not read; choose"),
        (gptq_settings(bits=3), "bits=3 is not among"),
        (gptq_settings(checkpoint_format="marlin"), "checkpoint_format='marlin' is not among"),
        ({"quant_method": "awq", "version": "gemv"}, "version='gemv' is not 'gemm'"),
        ({**COMPRESSED, "format": "nvfp4-pack-quantized"}, "format='nvfp4-pack-quantized' is not"),
        ({**COMPRESSED, "sparsity_config": {"format": "sparse-24-bitmask"}}, "sparsity_config"),
        ({**COMPRESSED, "transform_config": {"config_groups": {"u": {}}}}, "rotates activations"),
        ({"quant_method": "fp8", "expert_dtype": "fp4"}, "expert_dtype='fp4' is not 'fp8'"),
        ({"quant_method": "torchao"}, "has no tensor_names"),
    ],
)
@pytest.mark.parametrize("quantize", ["auto", "none", "int4"])
def test_variants_that_are_not_read_are_named(
    settings: dict[str, Any], message: str, quantize: str, tmp_path: Path
) -> None:
    folders.write_quantized(tmp_path, folders.gptq, settings)
    with pytest.raises(ModelLoadError, match=message) as refused:
        load(tmp_path, quantize=quantize)
    assert "\n" not in str(refused.value)


def test_numbers_that_no_setting_explains_are_not_taken_for_weights(tmp_path: Path) -> None:
    folders.write_quantized(tmp_path, folders.compressed_int8, {"quant_method": "gptq", "bits": 4})
    with pytest.raises(ModelLoadError, match=r"proj.weight has dtype='I8', which its quantization"):
        load(tmp_path, quantize="none")


def test_a_missing_shard_and_a_shard_cut_short_are_one_line_each(tmp_path: Path) -> None:
    folders.write_quantized(tmp_path, folders.gptq, gptq_settings())
    shard = tmp_path / "model-00002-of-00002.safetensors"
    content = shard.read_bytes()
    for damaged, message in (
        (content[:-10], "ends inside model.layers"),
        (content[:4], "has no safetensors header"),
        (b"\xff" * 40, "has no safetensors header"),
    ):
        shard.write_bytes(damaged)
        with pytest.raises(ModelLoadError, match=message) as refused:
            load(tmp_path)
        assert "\n" not in str(refused.value)
    shard.unlink()
    with pytest.raises(ModelLoadError, match=r"model-00002-of-00002\.safetensors"):
        load(tmp_path)
