"""Products with packed and dense weights, and rotary tables: C++ against the plain truth."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from streamingllm.kernels import reference
from streamingllm.kernels.operators import linear, quantized_linear, rotary_table
from streamingllm.kernels.packing import PackedWeight, pack_weight, unpack_weight
from tests.kernels.test_packing import random_parts

pytestmark = pytest.mark.usefixtures("native_kernels")

examples = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def random_weight(
    num_tiles: int, num_groups: int, num_bits: int, has_minimums: bool, seed: int = 0
) -> PackedWeight:
    codes, scales, minimums = random_parts(num_tiles, num_groups, num_bits, seed)
    return pack_weight(codes, scales, minimums if has_minimums else None, num_bits)


def random_numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def assert_product(out: Tensor, x: Tensor, weight: Tensor, relative: float) -> None:
    """Compare with the exact product; errors are relative to what the terms' sizes add up to."""
    x, weight = x.double(), weight.double()
    exact, sizes = x @ weight.mT, weight.abs()
    if sizes.shape[1] % 32 == 0:  # a packed weight is a difference of numbers of its group's size
        sizes = sizes.unflatten(1, (-1, 32)).amax(-1).repeat_interleave(32, 1)
    greatest = x.abs() @ sizes.mT
    rounding = 2**-8 * exact.abs() if out.dtype is torch.bfloat16 else 0.0
    assert out.shape == exact.shape
    assert bool(((out.double() - exact).abs() <= relative * greatest + rounding).all())


PACKED = {
    "num_tiles": st.integers(1, 9),
    "num_groups": st.integers(1, 20),
    "num_bits": st.sampled_from([4, 8]),
    "has_minimums": st.booleans(),
    "dtype": st.sampled_from([torch.float32, torch.bfloat16]),
}


@examples
@given(
    **PACKED,
    batch=st.integers(1, 19),
    seed=st.integers(0, 99),
)
def test_a_product_with_packed_weights(
    num_threads: int,
    num_tiles: int,
    num_groups: int,
    num_bits: int,
    has_minimums: bool,
    batch: int,
    dtype: torch.dtype,
    seed: int,
) -> None:
    weight = random_weight(num_tiles, num_groups, num_bits, has_minimums, seed)
    x = random_numbers(batch, num_groups * 32, seed=seed).to(dtype)
    out = quantized_linear(x, *weight.tensors)
    assert out.dtype is dtype
    # Activations have 16 bits with a scale of their own per group.
    whole = unpack_weight(*weight.tensors)
    assert_product(out, x, whole, relative=1e-4)


@examples
@given(
    out_features=st.integers(1, 200),
    in_features=st.integers(1, 40).map(lambda n: 16 * n),
    batch=st.one_of(st.integers(1, 11), st.sampled_from([20, 23, 97])),  # few and many
    x_dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    weight_dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_a_product_with_dense_weights(
    num_threads: int,
    out_features: int,
    in_features: int,
    batch: int,
    x_dtype: torch.dtype,
    weight_dtype: torch.dtype,
) -> None:
    weight = random_numbers(out_features, in_features).to(weight_dtype)
    x = random_numbers(batch, in_features, seed=1).to(x_dtype)
    out = linear(x, weight)
    assert out.dtype is x_dtype
    assert_product(out, x, weight, relative=1e-6)


@pytest.mark.parametrize("in_features", [1, 7, 20, 100])
def test_dense_rows_may_end_anywhere(in_features: int) -> None:
    weight, x = random_numbers(33, in_features), random_numbers(5, in_features, seed=1)
    assert_product(linear(x, weight), x, weight, relative=1e-6)


def test_leading_dimensions_and_strides_of_activations_are_kept() -> None:
    packed, dense = random_weight(2, 3, 4, True), random_numbers(20, 96)
    x = random_numbers(96, 3, 2).permute(2, 1, 0)
    assert quantized_linear(x, *packed.tensors).shape == (2, 3, 32)
    assert torch.equal(
        quantized_linear(x, *packed.tensors), quantized_linear(x.contiguous(), *packed.tensors)
    )
    assert torch.equal(linear(x, dense), linear(x.contiguous(), dense))


def test_dense_weights_may_be_views() -> None:
    x, weight = random_numbers(2, 32), random_numbers(32, 48).mT
    assert_product(linear(x, weight), x, weight, relative=1e-6)


def test_a_row_does_not_depend_on_the_others() -> None:
    packed, x = random_weight(4, 6, 4, True), random_numbers(17, 192)
    together = quantized_linear(x, *packed.tensors)
    for row in range(17):
        alone = quantized_linear(x[row], *packed.tensors)
        torch.testing.assert_close(together[row], alone, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("num_bits", [4, 8])
@pytest.mark.parametrize("has_minimums", [True, False])
def test_zeros_and_outliers(num_bits: int, has_minimums: bool) -> None:
    weight = random_weight(2, 3, num_bits, has_minimums)
    assert not quantized_linear(torch.zeros(2, 96), *weight.tensors).any()
    x = random_numbers(2, 96)
    x[0, 5], x[1, 40] = 1e4, -1e30
    whole = unpack_weight(*weight.tensors)
    assert_product(quantized_linear(x, *weight.tensors), x, whole, relative=2e-3)


@pytest.mark.parametrize(
    ("num_bits", "broken"),
    [
        (4, float("nan")),
        (4, float("inf")),
        (8, float("nan")),
        (8, float("inf")),
    ],
)
def test_what_is_not_a_number_does_not_become_one(num_bits: int, broken: float) -> None:
    x = random_numbers(1, 96)
    x[0, 40] = broken
    out = quantized_linear(x, *random_weight(2, 3, num_bits, False).tensors)
    assert not out.isfinite().any()


@pytest.mark.parametrize("num_bits", [4, 8])
@pytest.mark.parametrize("has_minimums", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_many_rows_meet_the_weights(
    num_threads: int, num_bits: int, has_minimums: bool, dtype: torch.dtype
) -> None:
    parts = random_weight(5, 3, num_bits, has_minimums).tensors
    out = quantized_linear(torch.eye(96, dtype=dtype), *parts)
    assert out.dtype is dtype
    whole = unpack_weight(*parts).mT.to(dtype)
    if dtype is torch.bfloat16:  # weights are unpacked
        assert torch.equal(out, whole)
    else:  # where products of bytes are used, one is 32,639 times a float near its inverse
        close = max(torch.finfo(dtype).eps, 4e-7)
        torch.testing.assert_close(out, whole, rtol=close, atol=close)


@examples
@given(
    **PACKED,
    batch=st.integers(18, 99),
)
def test_a_product_of_many_rows(
    num_threads: int,
    num_tiles: int,
    num_groups: int,
    num_bits: int,
    has_minimums: bool,
    batch: int,
    dtype: torch.dtype,
) -> None:
    weight = random_weight(num_tiles, num_groups, num_bits, has_minimums)
    x = random_numbers(batch, num_groups * 32).to(dtype)
    # From some number of rows on weights are rounded to the dtype of the activations.
    relative = 2**-8 if dtype is torch.bfloat16 else 1e-4
    assert_product(
        quantized_linear(x, *weight.tensors), x, unpack_weight(*weight.tensors), relative
    )


def test_a_wrong_width_is_refused() -> None:
    with pytest.raises(RuntimeError, match="it must have 96 features"):
        quantized_linear(torch.zeros(1, 64), *random_weight(1, 3, 4, True).tensors)


@pytest.mark.parametrize("shape", [(1,), (3,), (2, 4)])
def test_angles_are_exact_at_any_position(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    positions = torch.randint(-1000, 8_000_000, shape, generator=generator)
    inv_freq = 10_000.0 ** -torch.linspace(0, 1, 32, dtype=torch.float64)
    for scaling in (1.0, 1.3):
        ours = rotary_table(positions, inv_freq, scaling)
        truth = reference.rotary_table(positions, inv_freq, scaling)
        for table, expected in zip(ours, truth, strict=True):
            assert table.dtype is torch.float32
            torch.testing.assert_close(table, expected, rtol=1e-6, atol=1e-7)
