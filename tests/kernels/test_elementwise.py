"""What lies between a layer's products: C++ against the plain truth."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from streamingllm.kernels import reference
from streamingllm.kernels.operators import rms_norm, rotate, swish_gate

pytestmark = pytest.mark.usefixtures("native_kernels")

SHAPES = [(1, 16), (3, 48), (2, 33, 576), (1, 4, 70, 64)]


def random_numbers(*shape: int, seed: int = 0, size: float = 3.0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * size


def assert_equal(found: Tensor, expected: Tensor) -> None:
    """Sums run in another order: at most the last bit differs, in half precision rarely."""
    assert found.dtype is expected.dtype
    if found.dtype is torch.bfloat16:
        apart = (found != expected) & ((found - expected).abs() > 1e-30)
        assert apart.float().mean() < 1e-3
        torch.testing.assert_close(found, expected, rtol=2**-7, atol=1e-30)
    else:
        torch.testing.assert_close(found, expected, rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_norm_equals_the_reference(
    num_threads: int, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    x = random_numbers(*shape).to(dtype)
    weight = random_numbers(shape[-1], seed=1).to(dtype)
    assert_equal(rms_norm(x, weight, 1e-5), reference.rms_norm(x, weight, 1e-5))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [1e-3, 3.0, 40.0])
def test_a_gate_equals_the_reference(
    num_threads: int, shape: tuple[int, ...], dtype: torch.dtype, size: float
) -> None:
    gate, x = random_numbers(*shape, size=size).to(dtype), random_numbers(*shape, seed=1).to(dtype)
    assert_equal(swish_gate(gate, x), reference.swish_gate(gate, x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1, 3, 1, 32), (2, 9, 70, 64), (3, 1, 33, 96)])
@pytest.mark.parametrize("rows", ["one", "each"])
def test_a_rotation_equals_the_reference(
    num_threads: int, dtype: torch.dtype, shape: tuple[int, ...], rows: str
) -> None:
    batch, _, seq, dim = shape
    angles = random_numbers(batch if rows == "each" else 1, 1, seq, dim // 2, seed=1)
    cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)
    token_major = random_numbers(batch, seq, shape[1], dim).to(dtype).transpose(1, 2)
    for x in (token_major, token_major.contiguous()):
        found, expected = rotate(x, cos, sin), reference.rotate(x, cos, sin)
        if dtype is torch.bfloat16:
            assert torch.equal(found, expected)
        else:
            torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_a_rotation_reads_parts_of_rows() -> None:
    x, tables = random_numbers(2, 3, 5, 96)[..., 16:80], random_numbers(1, 5, 128, seed=1)
    cos, sin = (table[:, None] for table in tables.chunk(4, dim=-1)[::2])
    torch.testing.assert_close(rotate(x, cos, sin), reference.rotate(x, cos, sin))


def test_views_are_read_where_they_lie() -> None:
    x = random_numbers(32, 5, 2).permute(2, 1, 0)
    weight = random_numbers(64)[::2]
    assert_equal(rms_norm(x, weight, 1e-6), reference.rms_norm(x, weight, 1e-6))
    assert_equal(swish_gate(x, x.flip(0)), reference.swish_gate(x, x.flip(0)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_no_number_stays_none(dtype: torch.dtype) -> None:
    x = random_numbers(3, 16).to(dtype)
    x[0, 3], x[1, 4], x[2, 5] = torch.nan, torch.inf, -torch.inf
    norms = rms_norm(x, torch.ones(16, dtype=dtype), 1e-6)
    expected = reference.rms_norm(x, torch.ones(16, dtype=dtype), 1e-6)
    torch.testing.assert_close(norms, expected, equal_nan=True)
    gated = swish_gate(x, torch.ones_like(x))
    assert gated[0, 3].isnan()
    assert gated[1, 4] == torch.inf


def test_rows_that_do_not_fit_are_refused() -> None:
    with pytest.raises(RuntimeError, match="its rows must have a multiple of 16 numbers"):
        rms_norm(torch.ones(2, 20), torch.ones(20), 1e-6)
    with pytest.raises(RuntimeError, match=r"gate is \[2, 16\]; it must be \[1, 16\]"):
        swish_gate(torch.ones(2, 16), torch.ones(1, 16))
    with pytest.raises(RuntimeError, match="its rows must have a multiple of 32 numbers"):
        rotate(torch.ones(1, 1, 1, 48), torch.ones(1, 1, 1, 24), torch.ones(1, 1, 1, 24))
    with pytest.raises(RuntimeError, match="cosines is BFloat16; it must be Float"):
        rotate(torch.ones(1, 1, 1, 32), *torch.ones(2, 1, 1, 1, 16).bfloat16())
    with pytest.raises(RuntimeError, match="weight is BFloat16; it must be Float"):
        rms_norm(torch.ones(2, 16), torch.ones(16).bfloat16(), 1e-6)
