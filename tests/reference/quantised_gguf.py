"""Copies of GGUF files whose matrices are in blocks."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

from streamingllm.kernels.blocks import FORMATS
from tests.reference.ggml_rows import HALVES, random_rows

_EXACT = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0")  # what `gguf` can quantise to


def write_quantised(source: Path, target: Path, types: tuple[str, ...]) -> None:
    """Copy a GGUF file in float32, its matrices in blocks of these types, one after the other.

    Matrices of types that `gguf` cannot write get random blocks of a fitting size.
    """
    reader = gguf.GGUFReader(source)
    architecture = reader.fields["general.architecture"].contents()
    writer = gguf.GGUFWriter(target, architecture)
    for key, field in reader.fields.items():
        if not key.startswith("GGUF.") and key != "general.architecture":
            kind, inner = field.types[0], field.types[-1]
            is_array = kind == gguf.GGUFValueType.ARRAY
            writer.add_key_value(key, field.contents(), kind, sub_type=inner if is_array else None)
    count = 0
    for tensor in reader.tensors:
        if tensor.data.ndim == 2 and tensor.data.shape[1] % 32 == 0:
            number = gguf.GGMLQuantizationType[types[count % len(types)]]
            writer.add_tensor(tensor.name, _blocks(tensor.data, number, count), raw_dtype=number)
            count += 1
        else:
            writer.add_tensor(tensor.name, tensor.data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _blocks(values: np.ndarray, kind: gguf.GGMLQuantizationType, seed: int) -> np.ndarray:
    if kind.name in _EXACT:
        return gguf.quants.quantize(values, kind)
    rows = random_rows(kind.value, values.shape[0], values.shape[1], seed)
    spread = gguf.dequantize(rows.numpy(), kind).std() / 0.05
    return _shrunk(rows.numpy(), kind, spread)


def _shrunk(rows: np.ndarray, kind: gguf.GGMLQuantizationType, factor: float) -> np.ndarray:
    """Divide the halves of random blocks by a factor, or give exponents a fitting size."""
    format = FORMATS[kind.value]
    blocks = rows.reshape(len(rows), -1, format.block_bytes).copy()
    if kind.name == "MXFP4":
        blocks[..., 0] = 122 + blocks[..., 0] % 3
        return blocks.reshape(len(rows), -1)
    for at in HALVES[format.name]:
        halves = blocks[..., at : at + 2].copy().view(np.float16)
        blocks[..., at : at + 2] = (halves / factor).astype(np.float16).view(np.uint8)
    return blocks.reshape(len(rows), -1)
