"""Say which shapes and types the native kernels take, before anything is computed with them.

An operator whose kernels do not take a call refuses it. Callers ask here first and compute such a
call in plain PyTorch.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch

from streamingllm.kernels import gpu, native
from streamingllm.kernels.bounds import (
    DTYPES,
    GREATEST_GPU_DIM,
    GREATEST_WINDOWED_DIM,
    ROW_MULTIPLE,
)
from streamingllm.kernels.rows import SCALE_BYTES


class Heads(NamedTuple):
    """The heads of queries, keys or values.

    Args:
        number: of heads.
        dim: numbers of one head.
    """

    number: int
    dim: int


def decode_unsupported_reason(
    q: Heads,
    k: Heads,
    v: Heads,
    dtype: torch.dtype,
    device: torch.device,
    *,
    is_quantized: bool = False,
) -> str | None:
    """Return why `decode_attention` has no kernel for this; None if it has one.

    Args:
        q: the queries.
        k: the keys.
        v: the values, which may be of another width than keys.
        dtype: of queries, keys and values.
        device: where they are.
        is_quantized: whether the cache is int8.
    """
    reason = _heads_unsupported_reason(q, k, v) or _dtype_unsupported_reason(dtype, device)
    if reason is not None:
        return reason
    for name, heads in (("key", k), ("value", v)):
        if device.type == "cuda" and not 1 <= heads.dim <= GREATEST_GPU_DIM:
            return f"{name} heads have {heads.dim} numbers, kernels take 1 to {GREATEST_GPU_DIM}"
        if device.type == "cuda" and is_quantized and heads.dim % SCALE_BYTES:
            return f"{name} heads have {heads.dim} numbers, an int8 cache takes multiples of 4"
        if device.type == "cpu" and (reason := _row_unsupported_reason(f"{name} heads", heads.dim)):
            return reason
    return _missing_kernels_reason(device)


def windowed_unsupported_reason(
    q: Heads, k: Heads, v: Heads, dtype: torch.dtype, device: torch.device
) -> str | None:
    """Return why `windowed_attention` has no kernel for this; None if it has one.

    The arguments are those of `decode_unsupported_reason`.
    """
    reason = decode_unsupported_reason(q, k, v, dtype, device)
    if reason is None and max(k.dim, v.dim) > GREATEST_WINDOWED_DIM:
        return f"heads have more than {GREATEST_WINDOWED_DIM} numbers"
    return reason


def rows_unsupported_reason(dim: int, dtype: torch.dtype, device: torch.device) -> str | None:
    """Return why `rms_norm` and `swish_gate` have no kernel for rows of `dim` numbers, or None."""
    reason = _elementwise_unsupported_reason("rows", dim, dtype, device)
    return reason or _missing_kernels_reason(device)


def rotate_unsupported_reason(
    head_dim: int, dtype: torch.dtype, device: torch.device
) -> str | None:
    """Return why `rotate` has no kernel for heads of `head_dim` numbers, or None."""
    half = head_dim // 2 if head_dim % 2 == 0 else 1
    reason = _elementwise_unsupported_reason("half heads", half, dtype, device)
    return reason or _missing_kernels_reason(device)


def linear_unsupported_reason(dtype: torch.dtype, device: torch.device) -> str | None:
    """Return why `linear` has no kernel of ours for this, or None."""
    return (
        _processor_only_reason(device)
        or _dtype_unsupported_reason(dtype, device)
        or _missing_kernels_reason(device)
    )


@cache  # asked for each module of a pass
def _elementwise_unsupported_reason(
    name: str, dim: int, dtype: torch.dtype, device: torch.device
) -> str | None:
    return (
        _processor_only_reason(device)
        or _dtype_unsupported_reason(dtype, device)
        or _row_unsupported_reason(name, dim)
    )


def _heads_unsupported_reason(q: Heads, k: Heads, v: Heads) -> str | None:
    if k.number != v.number:
        return f"keys have {k.number} heads, values have {v.number}"
    if k.number < 1 or q.number < 1 or q.number % k.number:
        return f"{q.number} query heads are no multiple of {k.number} key heads"
    if q.dim != k.dim:
        return f"query heads have {q.dim} numbers, key heads have {k.dim}"
    return None


def _dtype_unsupported_reason(dtype: torch.dtype, device: torch.device) -> str | None:
    dtypes = DTYPES.get(device.type)
    if dtypes is None:
        return f"the device is {device}, kernels run on CPUs and CUDA"
    if dtype not in dtypes:
        names = ", ".join(str(x).removeprefix("torch.") for x in dtypes)
        return f"dtype is {dtype}, kernels take {names}"
    return None


def _row_unsupported_reason(name: str, dim: int) -> str | None:
    if dim < 1 or dim % ROW_MULTIPLE:
        return f"{name} have {dim} numbers, which is not a multiple of {ROW_MULTIPLE}"
    return None


def _processor_only_reason(device: torch.device) -> str | None:
    return None if device.type == "cpu" else f"the device is {device}, the kernel runs on CPUs"


def _missing_kernels_reason(device: torch.device) -> str | None:
    if device.type == "cuda":
        return None if gpu.load() else "there are no Triton kernels here"
    return None if native.load() else "there are no native kernels here"
