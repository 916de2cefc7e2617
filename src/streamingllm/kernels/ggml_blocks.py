"""Take blocks of a GGUF file apart, in plain PyTorch.

Source: dequantize_row_* in ggml-quants.c of https://github.com/ggml-org/ggml.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from streamingllm.kernels.blocks import FORMATS, BlockFormat, BlockParts

_Read = Callable[[Tensor], tuple[Tensor, Tensor, Tensor | None, Tensor | None]]


def read_blocks(rows: Tensor, format: BlockFormat) -> BlockParts:
    """Take rows of blocks apart.

    Args:
        rows: uint8, [out_features, bytes of a row].
        format: of the blocks.
    """
    blocks = rows.unflatten(1, (-1, format.block_bytes))
    codes, scales, minimums, factors = _READERS[format.ggml_type](blocks)
    if factors is not None:
        factors = factors.contiguous().view(torch.int16)
    return BlockParts(
        codes.flatten(1),
        _scales_of(scales),
        None if minimums is None else _scales_of(minimums),
        factors,
    )


def _scales_of(x: Tensor) -> Tensor:
    x = x.contiguous()
    return x.view(torch.int16).flatten(1) if x.shape[-1] == 2 and x.dim() == 4 else x.flatten(1)


def _half(x: Tensor) -> Tensor:
    """Mark two bytes as a half: [rows, blocks, 1, 2]."""
    return x[:, :, None]


def _nibbles(x: Tensor, run: int) -> Tensor:
    """Return the low nibbles of each run of bytes, then its high ones."""
    runs = x.unflatten(-1, (-1, run))
    return torch.cat([runs & 15, runs >> 4], dim=-1).flatten(-2)


def _bits(x: Tensor) -> Tensor:
    """Return the bits of bytes, lowest first."""
    return (x[..., None] >> torch.arange(8, dtype=torch.uint8) & 1).flatten(-2)


def _fields(x: Tensor, num_bits: int) -> Tensor:
    """Return the fields of all bytes, a field after the other: [..., 8 / num_bits, bytes]."""
    shifts = torch.arange(0, 8, num_bits, dtype=torch.uint8)[:, None]
    return x[..., None, :] >> shifts & (1 << num_bits) - 1


def _six_bits(x: Tensor) -> tuple[Tensor, Tensor]:
    low, middle, last = x.split(4, dim=-1)
    scales = torch.cat([low & 63, (last & 15) | (low >> 6 << 4)], dim=-1)
    minimums = torch.cat([middle & 63, (last >> 4) | (middle >> 6 << 4)], dim=-1)
    return scales, minimums


def _q4_0(b: Tensor) -> tuple[Tensor, Tensor, None, None]:
    return _nibbles(b[..., 2:], 16), _half(b[..., :2]), None, None


def _q4_1(b: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
    return _nibbles(b[..., 4:], 16), _half(b[..., :2]), _half(b[..., 2:4]), None


def _q5_0(b: Tensor) -> tuple[Tensor, Tensor, None, None]:
    codes = _nibbles(b[..., 6:], 16) | _bits(b[..., 2:6]) << 4
    return codes, _half(b[..., :2]), None, None


def _q5_1(b: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
    codes = _nibbles(b[..., 8:], 16) | _bits(b[..., 4:8]) << 4
    return codes, _half(b[..., :2]), _half(b[..., 2:4]), None


def _q8_0(b: Tensor) -> tuple[Tensor, Tensor, None, None]:
    return b[..., 2:], _half(b[..., :2]), None, None


def _q2_k(b: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    codes = _fields(b[..., 16:80].unflatten(-1, (2, 32)), 2).flatten(-3)
    factors = torch.stack([b[..., 80:82], b[..., 82:84]], dim=2)
    return codes, b[..., :16] & 15, b[..., :16] >> 4, factors


def _q3_k(b: Tensor) -> tuple[Tensor, Tensor, None, Tensor]:
    low = _fields(b[..., 32:96].unflatten(-1, (2, 32)), 2).flatten(-3)
    high = _fields(b[..., :32], 1).flatten(-2)
    four = _nibbles(b[..., 96:104], 8)
    two = _fields(b[..., 104:108], 2).flatten(-2)
    scales = (four | two << 4).to(torch.int8) - 32
    return low | high << 2, scales.view(torch.uint8), None, b[..., None, 108:110]


def _q4_k(b: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    factors = torch.stack([b[..., :2], b[..., 2:4]], dim=2)
    return _nibbles(b[..., 16:], 32), *_six_bits(b[..., 4:16]), factors


def _q5_k(b: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    factors = torch.stack([b[..., :2], b[..., 2:4]], dim=2)
    codes = _nibbles(b[..., 48:], 32) | _fields(b[..., 16:48], 1).flatten(-2) << 4
    return codes, *_six_bits(b[..., 4:16]), factors


def _q6_k(b: Tensor) -> tuple[Tensor, Tensor, None, Tensor]:
    low = _nibbles(b[..., :128], 64)
    high = _fields(b[..., 128:192].unflatten(-1, (2, 32)), 2).flatten(-3)
    return low | high << 4, b[..., 192:208], None, b[..., None, 208:210]


def _iq4_xs(b: Tensor) -> tuple[Tensor, Tensor, None, Tensor]:
    low = torch.stack([b[..., 4:8] & 15, b[..., 4:8] >> 4], dim=-1).flatten(-2)
    high = _fields(b[..., 2:4], 2).transpose(-1, -2).flatten(-2)
    scales = (low | high << 4).to(torch.int8) - 32
    return _nibbles(b[..., 8:], 16), scales.view(torch.uint8), None, b[..., None, :2]


def _mxfp4(b: Tensor) -> tuple[Tensor, Tensor, None, None]:
    return _nibbles(b[..., 1:], 16), b[..., :1], None, None


_READERS: dict[int, _Read] = {
    format.ggml_type: {
        "Q4_0": _q4_0, "Q4_1": _q4_1, "Q5_0": _q5_0, "Q5_1": _q5_1, "Q8_0": _q8_0, "Q2_K": _q2_k,
        "Q3_K": _q3_k, "Q4_K": _q4_k, "Q5_K": _q5_k, "Q6_K": _q6_k, "IQ4_NL": _q4_0,
        "IQ4_XS": _iq4_xs, "MXFP4": _mxfp4,
    }[format.name]
    for format in FORMATS.values()
}  # fmt: skip
