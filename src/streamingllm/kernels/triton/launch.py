"""Check the arguments of both operators; choose tile sizes and operand types."""

from __future__ import annotations

from functools import cache, reduce

import torch
import triton
import triton.language as tl
from torch import Tensor

from streamingllm.errors import InputError
from streamingllm.kernels.bounds import GREATEST_GPU_DIM

_OPERANDS = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}
_SMALLEST_BLOCK = 16  # what `tl.dot` takes
_PROGRAMS_PER_PROCESSOR = 4
_MOST_SPANS = 32


def power_of_two(x: int) -> int:
    """Return the least power of two that is at least x and that `tl.dot` takes."""
    return max(_SMALLEST_BLOCK, 1 << (x - 1).bit_length())


def rows_per_tile(widest: int, dtype: torch.dtype, num_bytes: int) -> int:
    """Return how many rows of `widest` numbers fit in `num_bytes` of a GPU's shared memory."""
    return max(_SMALLEST_BLOCK, num_bytes // (widest * dtype.itemsize))


def split_columns(num_columns: int, block: int, groups: int, processors: int) -> tuple[int, int]:
    """Return how many columns a span has, and how many spans keep every processor busy."""
    wanted = max(1, min(_MOST_SPANS, _PROGRAMS_PER_PROCESSOR * processors // groups))
    num_tiles = triton.cdiv(num_columns, block)
    span = triton.cdiv(num_tiles, wanted) * block
    return span, triton.cdiv(num_columns, span)


def operand_dtype(*tensors: Tensor) -> torch.dtype:
    """Return the type in which these are multiplied; codes take the queries' type.

    Raises:
        InputError: a tensor is of a type that the kernels do not know.
    """
    for x in tensors:
        if x.dtype not in (*_OPERANDS, torch.int8):
            raise InputError(f"dtype={x.dtype}; it must be float32, bfloat16, float16 or int8")
    return reduce(torch.promote_types, (x.dtype for x in tensors))


def in_triton(dtype: torch.dtype) -> tl.dtype:
    """Return Triton's name of an operand's type."""
    return _OPERANDS[dtype]


def check(name: str, x: Tensor, shape: tuple[int, ...], like: Tensor) -> None:
    """Raise InputError unless x is of a shape, lies where `like` does and needs no gradient."""
    if tuple(x.shape) != shape:
        raise InputError(f"{name} is {list(x.shape)}; it must be {list(shape)}")
    if x.device != like.device:
        raise InputError(f"{name} is on {x.device}; it must be on {like.device}, where q is")
    if x.requires_grad and torch.is_grad_enabled():
        raise InputError(
            f"{name} requires a gradient, which kernels do not compute; run under torch.no_grad()"
        )


def check_dtype(name: str, x: Tensor, dtype: torch.dtype) -> None:
    """Raise InputError unless x has a dtype."""
    if x.dtype is not dtype:
        raise InputError(f"{name} is {x.dtype}; it must be {dtype}")


def check_numbers(name: str, x: Tensor, shape: tuple[int, ...], like: Tensor) -> None:
    """Raise InputError unless x are int64 of a shape, where `like` is."""
    check(name, x, shape, like)
    check_dtype(name, x, torch.int64)


def check_heads(num_heads: int, num_kv_heads: int, *dims: int) -> None:
    """Raise InputError unless query heads share key/value heads evenly and tiles hold a head."""
    if num_heads < 1 or num_kv_heads < 1 or num_heads % num_kv_heads:
        raise InputError(f"q has {num_heads} heads; they must be a multiple of {num_kv_heads}")
    for dim in dims:
        if not 1 <= dim <= GREATEST_GPU_DIM:
            raise InputError(f"a head has {dim} numbers; it must have 1 to {GREATEST_GPU_DIM}")


def check_score(softcap: float, sink_logits: Tensor | None, num_heads: int, like: Tensor) -> None:
    """Raise InputError unless scores can be capped, and there is a learned logit for each head."""
    if softcap < 0:
        raise InputError(f"softcap={softcap} is negative; pass 0 for none")
    if sink_logits is None:
        return
    check("sink_logits", sink_logits, (num_heads,), like)
    if not sink_logits.is_floating_point():
        raise InputError(f"sink_logits is {sink_logits.dtype}; it must be floating point")


@cache
def num_processors(device: torch.device) -> int:
    """Return a GPU's streaming multiprocessors; a few for Triton's interpreter."""
    if device.type != "cuda":
        return 4
    return torch.cuda.get_device_properties(device).multi_processor_count
