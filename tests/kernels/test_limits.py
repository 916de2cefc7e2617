"""A reason is given for exactly those calls that the kernels refuse."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from streamingllm.kernels import native
from streamingllm.kernels.limits import (
    Heads,
    decode_unsupported_reason,
    linear_unsupported_reason,
    rotate_unsupported_reason,
    rows_unsupported_reason,
    windowed_unsupported_reason,
)
from streamingllm.kernels.operators import (
    decode_attention,
    rms_norm,
    rotate,
    swish_gate,
    windowed_attention,
)
from tests.kernels.decode_case import Case

pytestmark = pytest.mark.skipif(not native.load(), reason="needs the native kernels")

CPU = torch.device("cpu")
HEAD_DIMS = st.integers(1, 256) | st.sampled_from([16, 32, 64, 96, 256, 272, 512])
DTYPES = st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.float64])
examples = settings(max_examples=60, deadline=None)


@examples
@given(key_dim=HEAD_DIMS, value_dim=HEAD_DIMS, dtype=DTYPES, is_quantized=st.booleans())
def test_decode(key_dim: int, value_dim: int, dtype: torch.dtype, is_quantized: bool) -> None:
    case = Case(dtype=dtype, key_dim=key_dim, value_dim=value_dim, is_quantized=is_quantized)
    q, k, v = Heads(4, key_dim), Heads(2, key_dim), Heads(2, value_dim)
    reason = decode_unsupported_reason(q, k, v, dtype, CPU, is_quantized=is_quantized)
    if reason is None:
        decode_attention(**case.arguments())
    else:
        with pytest.raises(RuntimeError):
            decode_attention(**case.arguments())


@examples
@given(key_dim=HEAD_DIMS, value_dim=HEAD_DIMS, dtype=DTYPES)
def test_windowed(key_dim: int, value_dim: int, dtype: torch.dtype) -> None:
    heads = Heads(4, key_dim), Heads(2, key_dim), Heads(2, value_dim)
    q, k, v = (torch.ones(1, count, 3, dim, dtype=dtype) for count, dim in heads)
    numbers = torch.zeros(3, dtype=torch.int64), torch.ones(3, dtype=torch.int64)
    if windowed_unsupported_reason(*heads, dtype, CPU) is None:
        windowed_attention(q, q, k, v, *numbers, 0, 1.0, 0.0, None)
    else:
        with pytest.raises(RuntimeError):
            windowed_attention(q, q, k, v, *numbers, 0, 1.0, 0.0, None)


@examples
@given(dim=HEAD_DIMS, dtype=DTYPES)
def test_rows_and_rotations(dim: int, dtype: torch.dtype) -> None:
    x, half = torch.ones(1, 1, 2, dim, dtype=dtype), torch.ones(1, 1, 2, dim // 2, dtype=dtype)
    calls: list[tuple[str | None, Callable[[], object]]] = [
        (rows_unsupported_reason(dim, dtype, CPU), lambda: rms_norm(x, x[0, 0, 0], 1e-6)),
        (rows_unsupported_reason(dim, dtype, CPU), lambda: swish_gate(x, x)),
        (rotate_unsupported_reason(dim, dtype, CPU), lambda: rotate(x, half, half)),
    ]
    for reason, call in calls:
        if reason is None:
            call()
        else:
            with pytest.raises(RuntimeError):
                call()


@pytest.mark.parametrize(
    ("q", "k", "v", "reason"),
    [
        (Heads(4, 64), Heads(2, 64), Heads(1, 128), "keys have 2 heads, values have 1"),
        (Heads(4, 64), Heads(3, 64), Heads(3, 64), "4 query heads are no multiple of 3 key heads"),
        (Heads(4, 64), Heads(2, 32), Heads(2, 64), "query heads have 64 numbers, key heads have"),
        (Heads(4, 8), Heads(2, 8), Heads(2, 8), "key heads have 8 numbers, which is not a mult"),
        (Heads(4, 64), Heads(2, 64), Heads(2, 24), "value heads have 24 numbers, which is not"),
    ],
)
def test_the_reason_names_what_does_not_fit(q: Heads, k: Heads, v: Heads, reason: str) -> None:
    for find in (decode_unsupported_reason, windowed_unsupported_reason):
        assert str(find(q, k, v, torch.float32, CPU)).startswith(reason)


def test_devices_without_kernels_are_named() -> None:
    heads = Heads(2, 64)
    reason = decode_unsupported_reason(heads, heads, heads, torch.float32, torch.device("mps"))
    assert reason == "the device is mps, kernels run on CPUs and CUDA"
    reason = rows_unsupported_reason(64, torch.float32, torch.device("cuda"))
    assert reason == "the device is cuda, the kernel runs on CPUs"


@pytest.mark.parametrize(
    ("dtype", "device", "reason"),
    [
        (torch.float32, "cpu", None),
        (torch.bfloat16, "cpu", None),
        (torch.float16, "cpu", "dtype is torch.float16, kernels take float32, bfloat16"),
        (torch.float32, "cuda", "the device is cuda, the kernel runs on CPUs"),
    ],
)
def test_products(dtype: torch.dtype, device: str, reason: str | None) -> None:
    assert linear_unsupported_reason(dtype, torch.device(device)) == reason


def test_nothing_is_taken_without_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    assert rows_unsupported_reason(64, torch.float32, CPU) is None
    monkeypatch.setattr(native, "load", lambda: False)
    for reason in (
        rows_unsupported_reason(64, torch.float32, CPU),
        rotate_unsupported_reason(64, torch.float32, CPU),
        linear_unsupported_reason(torch.float32, CPU),
    ):
        assert reason == "there are no native kernels here"
