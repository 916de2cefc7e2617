"""A weight as a quantised checkpoint stores it: whole numbers on a grid, or small floats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from streamingllm.errors import StreamingLLMError
from streamingllm.kernels.packing import GROUP_SIZE, TILE_ROWS, PackedWeight, pack_weight

_CENTRE = 8  # the 4-bit code that stands for zero in symmetric groups
_LARGEST_CODE = 15


class NotRepresentableError(StreamingLLMError):
    """A packed layout cannot hold a weight without loss; the message is the reason."""


class StoredWeight(Protocol):
    """A weight [out_features, in_features] or, for experts, of any shape."""

    def dense(self) -> Tensor:
        """Return the weight in float32."""

    def pack(self) -> PackedWeight:
        """Return the weight in a packed layout, from which it is restored bit-identically.

        Raises:
            NotRepresentableError: no layout can hold it.
        """


@dataclass(frozen=True)
class Grid:
    """Hold a weight as scale * (code - zero) + offset.

    Args:
        codes: int32, [out_features, in_features]; -8 to 7 where there are offsets.
        scales: float, [out_features, groups]; groups divide a row evenly.
        zeros: int32, [out_features, groups], or None for zero.
        offsets: float, [out_features, groups], or None for zero.
        group_of_column: int64, [in_features], if groups are not runs of columns ("act-order").
    """

    codes: Tensor
    scales: Tensor
    zeros: Tensor | None = None
    offsets: Tensor | None = None
    group_of_column: Tensor | None = None

    def dense(self) -> Tensor:
        """Return the weight in float32."""
        weight = self._by_column(self.scales.float()) * self._differences().float()
        return weight if self.offsets is None else weight + self._by_column(self.offsets.float())

    def pack(self) -> PackedWeight:
        """Return the weight in four bits, else in eight; see `StoredWeight.pack`."""
        self._check_layout()
        scales = self._by_group(self.scales.float())
        half = scales.half()
        if not torch.equal(half.float(), scales):
            raise NotRepresentableError(
                f"its {_dtype_name(self.scales)} scales have no exact float16, which packed "
                "layouts keep"
            )
        return self._pack_whole(half) if self.offsets is None else self._pack_offsets(scales)

    def _pack_whole(self, half: Tensor) -> PackedWeight:
        """Pack codes whose zeros are whole numbers."""
        differences = self._differences()
        low, high = int(differences.min()), int(differences.max())
        if low >= -_CENTRE and high < _CENTRE:
            return pack_weight(differences + _CENTRE, half, None, 4)
        if low >= -128 and high <= 127 and (high - low > 2 * _LARGEST_CODE):
            return pack_weight(differences, half, None, 8)
        shifts = _shifts(differences.unflatten(1, (-1, GROUP_SIZE)), half.float())
        if shifts is not None:
            codes = differences + shifts.repeat_interleave(GROUP_SIZE, 1)
            return pack_weight(codes, half, (-half.float() * shifts).half(), 4)
        if low >= -128 and high <= 127:
            return pack_weight(differences, half, None, 8)
        raise NotRepresentableError(
            f"its codes lie {low} to {high} steps from their zero point, and packed layouts hold "
            "-128 to 127"
        )

    def _pack_offsets(self, scales: Tensor) -> PackedWeight:
        """Pack signed 4-bit codes whose groups have a floating-point offset."""
        assert self.offsets is not None
        offsets, codes = self._by_group(self.offsets.float()), self._differences()
        # Counted from -8, codes take 4 bits; eight bits hold the offsets as they are.
        for num_bits, centre in ((4, _CENTRE), (8, 0)):
            minimums = (offsets - centre * scales).half()
            wide = (codes + centre).unflatten(1, (-1, GROUP_SIZE)).float()
            restored = (wide * scales[..., None] + minimums.float()[..., None]).flatten(1)
            if torch.equal(restored, self.dense()):
                return pack_weight(codes + centre, scales.half(), minimums, num_bits)
        raise NotRepresentableError(
            f"its {_dtype_name(self.offsets)} offsets have no exact float16, which packed layouts "
            "keep"
        )

    def _check_layout(self) -> None:
        rows, columns = self.codes.shape
        if rows % TILE_ROWS or columns % GROUP_SIZE:
            raise NotRepresentableError(
                f"its size {rows} x {columns} does not fit tiles of {TILE_ROWS} rows and groups of "
                f"{GROUP_SIZE} columns"
            )
        if self.group_of_column is not None:
            raise NotRepresentableError(
                "act-order (desc_act) scatters the columns of a group, and packed layouts keep "
                f"groups of {GROUP_SIZE} neighbouring columns"
            )
        group_size = columns // self.scales.shape[1]
        if group_size % GROUP_SIZE:
            raise NotRepresentableError(
                f"its groups of {group_size} columns are no multiple of {GROUP_SIZE}"
            )

    def _differences(self) -> Tensor:
        """Codes counted from their zero point, int32, [out_features, in_features]."""
        return self.codes if self.zeros is None else self.codes - self._by_column(self.zeros)

    def _by_column(self, groups: Tensor) -> Tensor:
        """Repeat what groups have for each of their columns."""
        if self.group_of_column is not None:
            return groups[:, self.group_of_column]
        return groups.repeat_interleave(self.codes.shape[1] // groups.shape[1], 1)

    def _by_group(self, groups: Tensor) -> Tensor:
        """Repeat what groups have for each run of 32 columns."""
        return groups.repeat_interleave(self.codes.shape[1] // GROUP_SIZE // groups.shape[1], 1)


@dataclass(frozen=True)
class Values:
    """Hold a weight as numbers whose steps grow with their size, such as FP8.

    Args:
        weight: float32, of any shape.
        reason: why no packed layout holds it.
    """

    weight: Tensor
    reason: str

    def dense(self) -> Tensor:
        """Return the weight in float32."""
        return self.weight

    def pack(self) -> PackedWeight:
        """Refuse; see `StoredWeight.pack`."""
        raise NotRepresentableError(self.reason)


def _shifts(differences: Tensor, scales: Tensor) -> Tensor | None:
    """Return, for each group, the 4-bit code that stands for zero; None if a group has none.

    The minimum is -scale * shift, which must be a float16. A group that does not use all 16 codes
    has several shifts to choose from.

    Args:
        differences: int32, [out_features, groups, 32].
        scales: float32, [out_features, groups].
    """
    lowest, highest = -differences.amin(-1), _LARGEST_CODE - differences.amax(-1)
    shifts = torch.full_like(lowest, -1)
    for shift in (8, 4, 16, 0, 12, 6, 10, 2, 14, 7, 9, 5, 11, 3, 13, 1, 15):
        minimum = scales * shift
        fits = (lowest <= shift) & (shift <= highest) & (minimum.half().float() == minimum)
        shifts = torch.where((shifts < 0) & fits, shift, shifts)
    return None if bool((shifts < 0).any()) else shifts


def _dtype_name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
