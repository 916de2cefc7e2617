"""Lay out quantised weights in memory.

Along a row, 32 weights share a scale and, if they are asymmetric, a minimum. So GGUF's blocks Q4_0,
Q4_1 and Q8_0 (llama.cpp, ggml-quants) lose nothing here. Sixteen rows make a tile whose 32-bit
lanes each hold the next few weights of one row. One broadcast pair of activations then meets
sixteen rows at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

GROUP_SIZE = 32
TILE_ROWS = 16
_LANE_BITS = 32


@dataclass(frozen=True)
class PackedWeight:
    """Weights [out_features, in_features] as kernels read them.

    A weight is scale * code + minimum; a 4-bit code without minimum counts from -8.

    Args:
        codes: int32, [out_features / 16, in_features * bits / 32, 16].
        scales: float16, [out_features / 16, in_features / 32, 16].
        minimums: in the layout of scales; None for symmetric groups.
    """

    codes: Tensor
    scales: Tensor
    minimums: Tensor | None

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Codes, scales and minimums, as operators take them."""
        return self.codes, self.scales, self.minimums

    @property
    def num_bits(self) -> int:
        """Bits of a code."""
        return self.codes.shape[1] // self.scales.shape[1]


def pack_weight(
    codes: Tensor, scales: Tensor, minimums: Tensor | None, num_bits: int
) -> PackedWeight:
    """Lay out codes [out_features, in_features] and scales [out_features, in_features / 32].

    Args:
        codes: int; 0 to 15 for 4 bits, -128 to 127 for 8.
        scales: float16.
        minimums: float16, or None.
        num_bits: 4 or 8.
    """
    lanes = codes.to(torch.int32).unflatten(1, (-1, _LANE_BITS // num_bits))
    packed = torch.zeros(lanes.shape[:-1], dtype=torch.int32, device=codes.device)
    for i, shift in enumerate(_shifts(num_bits)):
        packed |= (lanes[..., i] & ((1 << num_bits) - 1)) << shift
    tiles = None if minimums is None else _to_tiles(minimums)
    return PackedWeight(_to_tiles(packed), _to_tiles(scales), tiles)


def unpack_codes(codes: Tensor, num_groups: int) -> Tensor:
    """Return the codes that `pack_weight` was given, int32, [out_features, in_features]."""
    num_bits = codes.shape[1] // num_groups
    lanes = _from_tiles(codes)[..., None]
    shifts = torch.tensor(_shifts(num_bits), device=codes.device, dtype=torch.int32)
    values = (lanes >> shifts) & ((1 << num_bits) - 1)
    if num_bits == 8:
        values = values.to(torch.int8).to(torch.int32)
    return values.flatten(1)


def unpack_weight(codes: Tensor, scales: Tensor, minimums: Tensor | None) -> Tensor:
    """Return the weights that a `PackedWeight` stands for, float32, [out_features, in_features]."""
    scale = _from_tiles(scales).float()
    num_bits = codes.shape[1] // scales.shape[1]
    rows, groups = scale.shape
    whole = unpack_codes(codes, groups).float().view(rows, groups, GROUP_SIZE)
    if minimums is None:
        centre = 8.0 if num_bits == 4 else 0.0
        weight = (whole - centre) * scale[..., None]
    else:
        weight = whole * scale[..., None] + _from_tiles(minimums).float()[..., None]
    return weight.flatten(1)


def _shifts(num_bits: int) -> list[int]:
    """Return the bit of its lane at which each code begins; neighbours are 16 bits apart."""
    return [num_bits * (i // 2) + 16 * (i % 2) for i in range(_LANE_BITS // num_bits)]


def _to_tiles(x: Tensor) -> Tensor:
    return x.reshape(-1, TILE_ROWS, x.shape[1]).transpose(1, 2).contiguous()


def _from_tiles(tiles: Tensor) -> Tensor:
    return tiles.transpose(1, 2).flatten(0, 1)
