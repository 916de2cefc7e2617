"""Weights in the bits of a GGUF file: C++ and plain PyTorch against the numbers of `gguf`."""

from __future__ import annotations

from collections.abc import Callable

import gguf
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from streamingllm.kernels import reference
from streamingllm.kernels.blocks import FORMATS
from streamingllm.kernels.operators import block_linear, block_rows, pack_blocks
from tests.kernels.test_linear import assert_product, random_numbers
from tests.reference.ggml_rows import random_rows

pytestmark = pytest.mark.usefixtures("native_kernels")

each_type = pytest.mark.parametrize(
    "ggml_type", list(FORMATS), ids=[format.name for format in FORMATS.values()]
)
examples = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def true_weights(rows: Tensor, ggml_type: int) -> Tensor:
    values = gguf.dequantize(rows.numpy(), gguf.GGMLQuantizationType(ggml_type))
    return torch.from_numpy(values.copy())


@each_type
@pytest.mark.parametrize("num_rows", [1, 16, 53])
def test_weights_are_those_of_the_file(ggml_type: int, num_rows: int) -> None:
    rows, columns = random_rows(ggml_type, num_rows, 512), 512
    weight, ids = true_weights(rows, ggml_type), torch.arange(num_rows)
    blocks = pack_blocks(rows, ggml_type, columns, None)
    assert torch.equal(reference.block_rows(ids, blocks, ggml_type, num_rows, columns), weight)
    assert torch.equal(block_rows(ids, blocks, ggml_type, num_rows, columns), weight)


@each_type
def test_plain_and_native_tiles_are_the_same_bytes(ggml_type: int) -> None:
    rows = random_rows(ggml_type, 35, 768)
    order = torch.randperm(35, generator=torch.Generator().manual_seed(0))
    for given_order in (None, order):
        native = pack_blocks(rows, ggml_type, 768, given_order)
        assert torch.equal(reference.pack_blocks(rows, ggml_type, 768, given_order), native)
    ids = torch.tensor([[3, 0], [34, 3]])
    out = block_rows(ids, native, ggml_type, 35, 768)
    assert torch.equal(out, true_weights(rows, ggml_type)[order][ids])


@examples
@given(
    ggml_type=st.sampled_from(list(FORMATS)),
    num_rows=st.integers(1, 70),
    num_spans=st.integers(1, 3),
    batch=st.one_of(st.integers(1, 19), st.sampled_from([20, 67])),  # few and many
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    seed=st.integers(0, 99),
)
def test_a_product_with_blocks(
    num_threads: int,
    ggml_type: int,
    num_rows: int,
    num_spans: int,
    batch: int,
    dtype: torch.dtype,
    seed: int,
) -> None:
    columns = num_spans * 256
    rows = random_rows(ggml_type, num_rows, columns, seed)
    weight, x = true_weights(rows, ggml_type), random_numbers(batch, columns, seed=seed).to(dtype)
    out = block_linear(x, pack_blocks(rows, ggml_type, columns, None), ggml_type, num_rows)
    assert out.dtype is dtype
    # Activations have 16 bits with a scale per group, or weights are rounded to bfloat16.
    assert_product(out, x, weight, relative=4e-3 if dtype is torch.bfloat16 else 1e-4)
    assert_product(
        reference.block_linear(
            x.float(), pack_blocks(rows, ggml_type, columns, None), ggml_type, num_rows
        ),
        x.float(),
        weight,
        relative=1e-5,
    )


@each_type
def test_a_row_does_not_depend_on_its_neighbours(ggml_type: int) -> None:
    rows = random_rows(ggml_type, 40, 256)
    blocks = pack_blocks(rows, ggml_type, 256, None)
    x = random_numbers(11, 256)
    together = block_linear(x, blocks, ggml_type, 40)
    for row in range(11):
        alone = block_linear(x[row : row + 1], blocks, ggml_type, 40)
        torch.testing.assert_close(alone[0], together[row], rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("shape", [(0, 256), (2, 0, 256), (2, 3, 256)])
def test_leading_dimensions_are_kept(shape: tuple[int, ...]) -> None:
    blocks = pack_blocks(random_rows(12, 20, 256), 12, 256, None)
    assert block_linear(torch.zeros(shape), blocks, 12, 20).shape == (*shape[:-1], 20)


def test_infinity_and_nan_stay_visible() -> None:
    blocks = pack_blocks(random_rows(14, 20, 256), 14, 256, None)
    x = torch.zeros(2, 256)
    x[0, 3], x[1, 200] = float("inf"), float("nan")
    assert not block_linear(x, blocks, 14, 20).isfinite().any()


def test_sizes_are_refused_by_name() -> None:
    rows = random_rows(12, 20, 256)
    blocks = pack_blocks(rows, 12, 256, None)
    x = torch.zeros(1, 256)
    calls: tuple[tuple[Callable[[], Tensor], str], ...] = (
        (lambda: block_linear(x, blocks, 99, 20), "format=99 is no ggml type"),
        (lambda: block_linear(x, blocks, 12, 40), "blocks is"),
        (lambda: block_linear(x, blocks, 12, 0), "out_features=0 must be positive"),
        (lambda: block_linear(torch.zeros(1, 128), blocks, 12, 20), "in_features=128"),
        (lambda: block_linear(x, blocks.float(), 12, 20), "blocks is Float"),
        (lambda: pack_blocks(rows, 12, 512, None), "rows is"),
        (lambda: pack_blocks(rows, 12, 255, None), "in_features=255"),
        (lambda: pack_blocks(rows, 5, 256, None), "format=5"),
    )
    for call, message in calls:
        with pytest.raises(RuntimeError, match=message):
            call()
    for ids in (torch.tensor([20]), torch.tensor([-1])):
        with pytest.raises(IndexError, match="ids holds"):
            block_rows(ids, blocks, 12, 20, 256)
    with pytest.raises(IndexError, match="order holds"):
        pack_blocks(rows, 12, 256, torch.full((20,), 20))
