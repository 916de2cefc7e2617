"""Lay out weights in the bits of a GGUF file.

Sixteen rows make a tile. A tile has five regions, each padded to whole cache lines: the low bits of
the codes, their high bits, the scales, the minimums, and the factors of scales and minimums. Within
32 columns, a code of b bits lies in b lanes of 32 bits per row. A lane holds 32 / b codes: those of
even columns in its lower half, those of odd columns in its upper half.

A weight is scale * (code - centre) - minimum. Some formats number the entries of a table instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

TILE_ROWS = 16
SPAN_COLUMNS = 256
UNIT_COLUMNS = 32
_LINE_BYTES = 64
_IQ4 = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
_FP4 = (0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12)


class ScaleKind(Enum):
    """Name how the scale of a group is stored."""

    HALF = "float16"
    EXPONENT = "a power of two, of which the byte is the exponent"
    FACTORED = "an int8 times a float16 of 256 columns"


@dataclass(frozen=True)
class BlockFormat:
    """Describe one type of blocks.

    Args:
        name: as ggml calls the type.
        ggml_type: its number.
        block_columns: columns of a block in the file.
        block_bytes: bytes of a block in the file.
        low_bits: of a code, kept in the first region.
        high_bits: of a code, kept in the second region.
        centre: the code that stands for zero.
        group_columns: columns that share a scale and a minimum.
        scale: how scales are stored, and minimums if there are any.
        has_minimums: whether groups have minimums.
        table: values that codes number; None for codes that are numbers themselves.

    Source: block_* in ggml-common.h of https://github.com/ggml-org/ggml.
    """

    name: str
    ggml_type: int
    block_columns: int
    block_bytes: int
    low_bits: int
    high_bits: int
    centre: int
    group_columns: int
    scale: ScaleKind
    has_minimums: bool = False
    table: tuple[int, ...] | None = None

    @property
    def is_factored(self) -> bool:
        """Tell whether scales and minimums are bytes times a factor."""
        return self.scale is ScaleKind.FACTORED

    def regions(self, in_features: int) -> tuple[int, ...]:
        """Return the bytes of a tile's regions: low, high, scales, minimums, factors."""
        groups, spans = in_features // self.group_columns, in_features // SPAN_COLUMNS
        scale_bytes = groups * TILE_ROWS * (2 if self.scale is ScaleKind.HALF else 1)
        factors = spans * TILE_ROWS * 2 * (2 if self.has_minimums else 1)
        return (
            in_features * TILE_ROWS * self.low_bits // 8,
            in_features * TILE_ROWS * self.high_bits // 8,
            _whole_lines(scale_bytes),
            _whole_lines(scale_bytes) if self.has_minimums else 0,
            _whole_lines(factors) if self.is_factored else 0,
        )

    def row_bytes(self, in_features: int) -> int:
        """Return the bytes of a row in the file."""
        return in_features // self.block_columns * self.block_bytes


_H, _E, _F = ScaleKind.HALF, ScaleKind.EXPONENT, ScaleKind.FACTORED
_ALL = (
    BlockFormat("Q4_0", 2, 32, 18, 4, 0, 8, 32, _H),
    BlockFormat("Q4_1", 3, 32, 20, 4, 0, 0, 32, _H, True),
    BlockFormat("Q5_0", 6, 32, 22, 4, 1, 16, 32, _H),
    BlockFormat("Q5_1", 7, 32, 24, 4, 1, 0, 32, _H, True),
    BlockFormat("Q8_0", 8, 32, 34, 8, 0, 0, 32, _H),
    BlockFormat("Q2_K", 10, 256, 84, 2, 0, 0, 16, _F, True),
    BlockFormat("Q3_K", 11, 256, 110, 2, 1, 4, 16, _F),
    BlockFormat("Q4_K", 12, 256, 144, 4, 0, 0, 32, _F, True),
    BlockFormat("Q5_K", 13, 256, 176, 4, 1, 0, 32, _F, True),
    BlockFormat("Q6_K", 14, 256, 210, 4, 2, 32, 16, _F),
    BlockFormat("IQ4_NL", 20, 32, 18, 4, 0, 0, 32, _H, table=_IQ4),
    BlockFormat("IQ4_XS", 23, 256, 136, 4, 0, 0, 32, _F, table=_IQ4),
    BlockFormat("MXFP4", 39, 32, 17, 4, 0, 0, 32, _E, table=_FP4),
)
FORMATS = {x.ggml_type: x for x in _ALL}  # what operators take as `format`


@dataclass(frozen=True)
class BlockParts:
    """Hold the parts of blocked weights, one row after the other.

    Args:
        codes: uint8, [out_features, in_features].
        scales: [out_features, groups]: float16 bits as int16, or bytes as uint8.
        minimums: in the layout of scales; None for formats without.
        factors: float16 bits as int16, [out_features, spans, 1 or 2]; None if not factored.
    """

    codes: Tensor
    scales: Tensor
    minimums: Tensor | None
    factors: Tensor | None


def to_tiles(format: BlockFormat, parts: BlockParts) -> Tensor:
    """Lay out parts as tiles, uint8, [out_features / 16 rounded up, bytes of a tile]."""
    low = parts.codes & (1 << format.low_bits) - 1
    factors = None if parts.factors is None else parts.factors.flatten(1)
    regions = [_to_lanes(low, format.low_bits)]
    if format.high_bits:
        regions.append(_to_lanes(parts.codes >> format.low_bits, format.high_bits))
    regions += [x for x in (parts.scales, parts.minimums, factors) if x is not None]
    return torch.cat([_to_region(x) for x in regions], dim=1)


def from_tiles(format: BlockFormat, blocks: Tensor, out_features: int, in_features: int) -> Tensor:
    """Return the weights that tiles stand for, float32, [out_features, in_features]."""
    groups, spans = in_features // format.group_columns, in_features // SPAN_COLUMNS
    regions: tuple[Tensor, ...] = blocks.split(format.regions(in_features), dim=1)
    low, high, scales, minimums, factors = regions
    codes = _from_lanes(low, format.low_bits, in_features)
    if format.high_bits:
        codes |= _from_lanes(high, format.high_bits, in_features) << format.low_bits
    if format.table is not None:
        values = torch.tensor(format.table, dtype=torch.float32)[codes]
    else:
        signed = codes.to(torch.uint8).view(torch.int8) if format.low_bits == 8 else codes
        values = signed.float() - float(format.centre)
    num_factors = 2 if format.has_minimums else 1
    halves = _rows_of(factors, torch.float16, spans * num_factors) if format.is_factored else None
    scale = _stored(format, scales, groups, None if halves is None else halves[:, ::num_factors])
    grouped: Tensor = values.unflatten(1, (groups, -1)) * scale[..., None]
    if format.has_minimums:
        sign = 1.0 if halves is None else -1.0
        factor = None if halves is None else halves[:, 1::2]
        grouped += sign * _stored(format, minimums, groups, factor)[..., None]
    return grouped.flatten(1)[:out_features]


def _stored(format: BlockFormat, region: Tensor, groups: int, factor: Tensor | None) -> Tensor:
    if format.scale is ScaleKind.HALF:
        return _rows_of(region, torch.float16, groups).float()
    if format.scale is ScaleKind.EXPONENT:
        exponents = _rows_of(region, torch.uint8, groups).double()
        return torch.exp2(exponents - 128).float()
    assert factor is not None
    numbers = _rows_of(region, torch.int8, groups).float()
    factors = factor.float().repeat_interleave(SPAN_COLUMNS // format.group_columns, dim=1)
    return numbers * factors


def _whole_lines(num_bytes: int) -> int:
    return -(-num_bytes // _LINE_BYTES) * _LINE_BYTES


def _shifts(num_bits: int) -> list[int]:
    return [num_bits * (i // 2) + 16 * (i % 2) for i in range(32 // num_bits)]


def _to_lanes(codes: Tensor, num_bits: int) -> Tensor:
    """Return int32 lanes [out_features, in_features * num_bits / 32]."""
    in_lanes = codes.to(torch.int32).unflatten(1, (-1, 32 // num_bits))
    lanes = torch.zeros(in_lanes.shape[:2], dtype=torch.int32)
    for i, shift in enumerate(_shifts(num_bits)):
        lanes |= in_lanes[..., i] << shift
    return lanes


def _from_lanes(region: Tensor, num_bits: int, in_features: int) -> Tensor:
    lanes = _rows_of(region, torch.int32, in_features * num_bits // 32)
    codes = lanes[..., None] >> torch.tensor(_shifts(num_bits), dtype=torch.int32)
    return (codes & (1 << num_bits) - 1).flatten(1)


def _to_region(x: Tensor) -> Tensor:
    """Turn rows [out_features, n] into bytes of tiles in which neighbours are of one column."""
    missing = -len(x) % TILE_ROWS
    whole = torch.cat([x, x.new_zeros(missing, x.shape[1])]) if missing else x
    tiles = whole.unflatten(0, (-1, TILE_ROWS)).transpose(1, 2)
    tiles = tiles.clone(memory_format=torch.contiguous_format)  # of no rows too
    region = tiles.view(torch.uint8).flatten(1)
    padding = _whole_lines(region.shape[1]) - region.shape[1]
    return torch.nn.functional.pad(region, (0, padding))


def _rows_of(region: Tensor, dtype: torch.dtype, columns: int) -> Tensor:
    """Undo `_to_region`: [tiles * 16, columns]."""
    # A copy begins where numbers may begin, which a slice of bytes need not do.
    used: Tensor = region[:, : columns * TILE_ROWS * dtype.itemsize].clone(
        memory_format=torch.contiguous_format
    )
    rows: Tensor = used.view(dtype).unflatten(1, (columns, TILE_ROWS)).transpose(1, 2).flatten(0, 1)
    return rows
