"""What both operators decide before they launch: tile sizes, operand types, how to split work."""

from __future__ import annotations

from functools import cache, reduce

import torch
import triton.language as tl
from torch import Tensor

from streamingllm.errors import InputError

_OPERANDS = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}
_SMALLEST_BLOCK = 16  # what `tl.dot` takes


def power_of_two(x: int) -> int:
    """Return the least power of two that is at least x and that `tl.dot` takes."""
    return max(_SMALLEST_BLOCK, 1 << (x - 1).bit_length())


def rows_per_tile(widest: int, dtype: torch.dtype, num_bytes: int) -> int:
    """Return how many rows of `widest` numbers fit in `num_bytes` of a GPU's shared memory."""
    return max(_SMALLEST_BLOCK, num_bytes // (widest * dtype.itemsize))


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
    """Raise InputError unless x is of a shape and lies where `like` does."""
    if tuple(x.shape) != shape:
        raise InputError(f"{name} is {list(x.shape)}; it must be {list(shape)}")
    if x.device != like.device:
        raise InputError(f"{name} is on {x.device}; it must be on {like.device}, where q is")


@cache
def num_processors(device: torch.device) -> int:
    """Return a GPU's streaming multiprocessors; a few for Triton's interpreter."""
    if device.type != "cuda":
        return 4
    return torch.cuda.get_device_properties(device).multi_processor_count
