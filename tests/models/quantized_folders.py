"""Tiny checkpoints in the formats of other makers, written element by element.

Nothing here comes from the readers under test: each writer follows the published description of its
format, and computes in float64 the weights that it stands for.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor
from transformers import LlamaForCausalLM

from tests.reference.tiny_folder import byte_tokenizer
from tests.reference.tiny_llama import new_llama

Array = NDArray[Any]
Writer = Callable[["Writing", str, tuple[int, int]], "Written"]
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


@dataclass
class Written:
    """What a layer became: its tensors by suffix, and the weight that they stand for."""

    tensors: dict[str, Tensor]
    weight: Array


@dataclass
class Writing:
    """What writers choose from."""

    random: np.random.Generator
    group_size: int = 32
    dtype: torch.dtype = torch.float16
    symmetric: bool = True
    num_bits: int = 4

    def scales(self, rows: int, groups: int) -> Tensor:
        """Scales that the dtype holds exactly."""
        values = self.random.uniform(0.002, 0.02, (rows, groups))
        return torch.tensor(values).to(self.dtype)

    def codes(self, rows: int, columns: int) -> tuple[Array, Array]:
        """Codes from 0, and zero points of groups."""
        count = 1 << self.num_bits
        groups = columns // self.group_size
        codes = self.random.integers(0, count, (rows, columns))
        middle = np.full((rows, groups), count // 2)
        wild = self.random.integers(1, count, (rows, groups))
        return codes, middle if self.symmetric else wild

    def dense(self, codes: Array, zeros: Array, scales: Tensor) -> Array:
        """scale * (code - zero)."""
        per_column = self.group_size
        wide = np.repeat(scales.double().numpy(), per_column, 1)
        return wide * (codes - np.repeat(zeros, per_column, 1))


def words_along(numbers: Array, num_bits: int, axis: int) -> Tensor:
    """Put unsigned numbers into 32-bit words along an axis, the first in the lowest bits."""
    moved = np.moveaxis(numbers, axis, -1)
    rows, count = moved.shape
    words = np.zeros((rows, -(-count * num_bits // 32)), dtype=np.uint64)
    for row in range(rows):
        for i in range(count):
            bit = i * num_bits
            value = int(moved[row, i]) << (bit % 32)
            words[row, bit // 32] |= np.uint64(value & 0xFFFFFFFF)
            if value >> 32:
                words[row, bit // 32 + 1] |= np.uint64(value >> 32)
    packed = np.moveaxis(words, -1, axis).astype(np.uint32).view(np.int32)
    return torch.from_numpy(np.ascontiguousarray(packed))


def gptq(writing: Writing, layer: str, shape: tuple[int, int], *, v2: bool = False) -> Written:
    """Words down the columns, zero points less one."""
    codes, zeros = writing.codes(*shape)
    scales = writing.scales(shape[0], zeros.shape[1])
    stored = zeros if v2 else zeros - 1
    tensors = {
        "qweight": words_along(codes.T, writing.num_bits, 0),
        "qzeros": words_along(stored.T, writing.num_bits, 1),
        "scales": scales.T.contiguous(),
        "g_idx": torch.arange(shape[1], dtype=torch.int32) // writing.group_size,
    }
    return Written(tensors, writing.dense(codes, zeros, scales))


def gptq_v2(writing: Writing, layer: str, shape: tuple[int, int]) -> Written:
    """Zero points as they are."""
    return gptq(writing, layer, shape, v2=True)


def act_order(writing: Writing, layer: str, shape: tuple[int, int]) -> Written:
    """GPTQ whose columns belong to groups in random order."""
    written = gptq(writing, layer, shape)
    shuffled = writing.random.permutation(shape[1])
    groups = written.tensors["g_idx"].numpy()[shuffled]
    written.tensors["g_idx"] = torch.from_numpy(groups)
    codes, zeros = np.empty(shape), np.empty((shape[0], shape[1] // writing.group_size))
    words = written.tensors["qweight"].numpy().view(np.uint32)
    for row in range(shape[0]):
        for column in range(shape[1]):
            codes[row, column] = (int(words[column // 8, row]) >> 4 * (column % 8)) & 15
    zeros[:] = 8
    scales = written.tensors["scales"].T.double().numpy()
    return Written(written.tensors, scales[:, groups] * (codes - zeros[:, groups]))


def awq(writing: Writing, layer: str, shape: tuple[int, int]) -> Written:
    """Words along the rows of the transpose, nibbles interleaved."""
    codes, zeros = writing.codes(*shape)
    scales = writing.scales(shape[0], zeros.shape[1])

    def interleaved(numbers: Array) -> Tensor:  # [n, out_features]
        order = [8 * word + i for word in range(numbers.shape[1] // 8) for i in AWQ_ORDER]
        return words_along(numbers[:, order], 4, 1)

    tensors = {
        "qweight": interleaved(codes.T),
        "qzeros": interleaved(zeros.T),
        "scales": scales.T.contiguous(),
    }
    return Written(tensors, writing.dense(codes, zeros, scales))


def compressed(writing: Writing, layer: str, shape: tuple[int, int]) -> Written:
    """compressed-tensors, pack-quantized."""
    codes, zeros = writing.codes(*shape)
    scales = writing.scales(shape[0], zeros.shape[1])
    tensors = {
        "weight_packed": words_along(codes, writing.num_bits, 1),
        "weight_scale": scales,
        "weight_shape": torch.tensor(shape),
    }
    if not writing.symmetric:
        tensors["weight_zero_point"] = words_along(zeros, writing.num_bits, 0)
    return Written(tensors, writing.dense(codes, zeros, scales))


def compressed_int8(writing: Writing, layer: str, shape: tuple[int, int]) -> Written:
    """compressed-tensors, int-quantized, a scale of each row."""
    codes = writing.random.integers(-128, 128, shape)
    scales = writing.scales(shape[0], 1)
    tensors = {"weight": torch.tensor(codes, dtype=torch.int8), "weight_scale": scales}
    return Written(tensors, scales.double().numpy() * codes)


def _float8(writing: Writing, shape: tuple[int, int]) -> tuple[Tensor, Array]:
    """Random E4M3 bytes, and the numbers that sign, exponent and mantissa stand for."""
    stored = writing.random.integers(0, 256, shape).astype(np.uint8)
    stored[(stored & 127) == 127] = 0  # not a number
    sign = np.where(stored >> 7, -1.0, 1.0)
    exponent, mantissa = (stored >> 3).astype(int) & 15, (stored & 7) / 8
    normal = (1 + mantissa) * 2.0 ** (exponent - 7)
    values = sign * np.where(exponent == 0, mantissa * 2.0**-6, normal)
    return torch.from_numpy(stored).view(torch.float8_e4m3fn), values


def float8_blocks(writing: Writing, layer: str, shape: tuple[int, int]) -> Written:
    """Blocks of 48 x 48, the last of which the edge cuts off."""
    weight, values = _float8(writing, shape)
    blocks = tuple(-(-size // 48) for size in shape)
    scales = torch.tensor(writing.random.uniform(1e-4, 1e-3, blocks), dtype=torch.float32)
    wide = np.kron(scales.double().numpy(), np.ones((48, 48)))[: shape[0], : shape[1]]
    return Written({"weight": weight, "weight_scale_inv": scales}, values * wide)


def float8_tensor(writing: Writing, layer: str, shape: tuple[int, int]) -> Written:
    """One scale for the tensor."""
    weight, values = _float8(writing, shape)
    scale = torch.tensor(0.0005)
    tensors = {"weight": weight, "weight_scale_inv": scale, "activation_scale": torch.tensor(0.1)}
    return Written(tensors, values * float(scale))


def float8_rows(writing: Writing, layer: str, shape: tuple[int, int]) -> Written:
    """A scale for each row, as fbgemm and compressed-tensors have it."""
    weight, values = _float8(writing, shape)
    scales = torch.tensor(writing.random.uniform(1e-4, 1e-3, (shape[0], 1)), dtype=torch.float32)
    tensors = {"weight": weight, "weight_scale": scales}
    return Written(tensors, values * scales.double().numpy())


def write_quantized(
    folder: Path, writer: Writer, settings: dict[str, Any], **choices: Any
) -> LlamaForCausalLM:
    """Write a tiny Llama whose layers are quantised; return the dense model it stands for."""
    model = new_llama(
        vocab_size=272,
        hidden_size=64,
        intermediate_size=128,
        max_position_embeddings=64,
        attention_bias=True,
    )
    writing = Writing(np.random.default_rng(1), **choices)
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and name != "lm_head":
            written = writer(writing, name, (module.out_features, module.in_features))
            module.weight.copy_(torch.from_numpy(written.weight))
            del tensors[f"{name}.weight"]
            tensors |= {f"{name}.{suffix}": part for suffix, part in written.tensors.items()}
        elif isinstance(module, torch.nn.Linear | torch.nn.Embedding):
            module.weight.copy_(module.weight.bfloat16())
            tensors[f"{name}.weight"] = module.weight.bfloat16()
    for name, bias in model.named_parameters():
        if name.endswith("bias"):
            bias.copy_(torch.from_numpy(writing.random.normal(0, 0.1, bias.shape)))
            tensors[name] = bias.clone()
    save_folder(folder, model, tensors, settings)
    return model


def save_folder(
    folder: Path,
    model: Any,
    tensors: dict[str, Tensor],
    settings: dict[str, Any] | None,
    metadata: dict[str, str] | None = None,
) -> None:
    """Write config, tokenizer and tensors, in two shards with an index."""
    folder.mkdir(parents=True, exist_ok=True)
    model.config.save_pretrained(folder)
    if settings is not None:
        config = json.loads((folder / "config.json").read_text())
        config["quantization_config"] = settings
        (folder / "config.json").write_text(json.dumps(config))
    byte_tokenizer().save_pretrained(folder)
    names = sorted(tensors)
    places: dict[str, str] = {}
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        file = f"model-{number:05}-of-00002.safetensors"
        save_file({n: tensors[n].contiguous() for n in part}, folder / file, metadata=metadata)
        places |= dict.fromkeys(part, file)
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
