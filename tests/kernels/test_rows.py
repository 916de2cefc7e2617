from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy import float32
from numpy.typing import NDArray

from streamingllm.kernels.rows import SCALE_BYTES, decode_rows, encode_rows

# Below it a row's scale is subnormal, and the row may be read as zeros.
SMALLEST = 127 * float(torch.finfo(torch.float32).tiny)
NUMBERS = st.floats(-1e6, 1e6, width=32, allow_subnormal=False)

SHAPES = array_shapes(min_dims=1, max_dims=3, max_side=9).map(lambda s: (*s[:-1], 4 * s[-1]))


@given(arrays(float32, SHAPES, elements=NUMBERS))
def test_the_error_is_at_most_half_a_step(values: NDArray[float32]) -> None:
    x = torch.from_numpy(values)
    rows = encode_rows(x)
    assert rows.dtype is torch.int8
    assert rows.shape == (*x.shape[:-1], x.shape[-1] + SCALE_BYTES)
    half_step = x.abs().amax(-1, keepdim=True).double() / 127 / 2
    error = (decode_rows(rows).double() - x).abs()
    assert bool((error <= half_step * (1 + 1e-4) + SMALLEST).all())


@given(arrays(float32, (3, 8), elements=NUMBERS))
def test_what_was_rounded_once_is_found_again(values: NDArray[float32]) -> None:
    once = decode_rows(encode_rows(torch.from_numpy(values)))
    twice = decode_rows(encode_rows(once))
    torch.testing.assert_close(twice, once, rtol=1e-6, atol=SMALLEST)


def test_zeros_stay_zeros_and_the_greatest_keeps_its_value() -> None:
    x = torch.tensor([[0.0, 0.0, 0.0], [1.0, -4.0, 2.0]])
    back = decode_rows(encode_rows(x))
    assert not back[0].any()
    assert back[1, 1] == pytest.approx(-4.0, rel=1e-6)
    assert encode_rows(x)[1, :3].tolist() == [32, -127, 64]


def test_a_view_of_rows_can_be_read() -> None:
    x = torch.randn(2, 6, 16, generator=torch.Generator().manual_seed(0))
    rows = encode_rows(x)
    assert torch.equal(decode_rows(rows[:, 1:4]), decode_rows(rows)[:, 1:4])
    assert torch.equal(decode_rows(rows.transpose(0, 1)), decode_rows(rows).transpose(0, 1))


def test_bfloat16_is_rounded_as_its_float() -> None:
    x = torch.randn(4, 16, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert torch.equal(encode_rows(x), encode_rows(x.float()))
