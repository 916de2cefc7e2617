from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from streamingllm.kernels.packing import (
    GROUP_SIZE,
    TILE_ROWS,
    pack_weight,
    unpack_codes,
    unpack_weight,
)


def random_parts(
    num_tiles: int, num_groups: int, num_bits: int, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Codes, scales and minimums, row by row."""
    generator = torch.Generator().manual_seed(seed)
    rows = num_tiles * TILE_ROWS
    low, high = (0, 16) if num_bits == 4 else (-128, 128)
    codes = torch.randint(low, high, (rows, num_groups * GROUP_SIZE), generator=generator)
    halves = torch.randn(2, rows, num_groups, generator=generator).half()
    return codes, halves[0], halves[1]


@pytest.mark.parametrize("num_bits", [4, 8])
@given(num_tiles=st.integers(1, 4), num_groups=st.integers(1, 5), seed=st.integers(0, 999))
def test_what_is_packed_is_found_again(
    num_bits: int, num_tiles: int, num_groups: int, seed: int
) -> None:
    codes, scales, minimums = random_parts(num_tiles, num_groups, num_bits, seed)
    packed = pack_weight(codes, scales, minimums, num_bits)
    assert torch.equal(unpack_codes(packed.codes, num_groups), codes.int())
    wide = codes.float().unflatten(1, (-1, GROUP_SIZE))
    expected = wide * scales.float()[..., None] + minimums.float()[..., None]
    assert torch.equal(unpack_weight(*packed.tensors), expected.flatten(1))
    without = pack_weight(codes, scales, None, num_bits)
    centred = (wide - (8 if num_bits == 4 else 0)) * scales.float()[..., None]
    assert without.tensors[2] is None
    assert torch.equal(unpack_weight(*without.tensors), centred.flatten(1))


@pytest.mark.parametrize(("num_bits", "bytes_per_group"), [(4, 16), (8, 32)])
def test_a_packed_weight_takes_its_bits_and_one_scale_per_group(
    num_bits: int, bytes_per_group: int
) -> None:
    packed = pack_weight(*random_parts(3, 4, num_bits, 0), num_bits)
    num_groups = 3 * TILE_ROWS * 4
    assert packed.codes.shape == (3, 4 * num_bits, TILE_ROWS)
    assert packed.scales.shape == (3, 4, TILE_ROWS)
    assert packed.codes.nbytes == num_groups * bytes_per_group
    assert packed.scales.nbytes == num_groups * 2
    assert all(x is not None and x.is_contiguous() for x in packed.tensors)


def test_rows_are_independent_so_weights_can_be_joined() -> None:
    codes, scales, minimums = random_parts(4, 2, 4, 0)
    whole = pack_weight(codes, scales, minimums, 4)
    first = pack_weight(codes[:32], scales[:32], minimums[:32], 4)
    second = pack_weight(codes[32:], scales[32:], minimums[32:], 4)
    for one, two, all_ in zip(first.tensors, second.tensors, whole.tensors, strict=True):
        assert one is not None
        assert two is not None
        assert all_ is not None
        assert torch.equal(torch.cat((one, two)), all_)
