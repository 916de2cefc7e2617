"""Put the Triton kernels in charge of CUDA tensors."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache, wraps

import torch
import torch.nn.functional as F
from torch import Tensor

from streamingllm.errors import first_line
from streamingllm.kernels import (
    operators,  # noqa: F401  (their signatures come before their code)
    reference,
)
from streamingllm.kernels.bounds import DTYPES

_LIBRARY = torch.library.Library("streamingllm", "IMPL", "CUDA")
_OPERATORS = ("decode_attention", "windowed_attention")
_log = logging.getLogger("streamingllm")


@cache
def load() -> bool:
    """Make the Triton kernels known to torch; tell whether a GPU runs them.

    Where triton is missing, or cannot compile for this GPU, the plain PyTorch operators stay in
    charge; that is said once in the log. They also keep tensors of float64, which only tests use.
    """
    if not torch.cuda.is_available():
        return False
    try:
        from streamingllm.kernels import triton

        for dtype in DTYPES["cuda"]:  # older GPUs lack some of them
            _try(triton.decode_attention, dtype)
    except Exception as error:  # compilers fail in ways of their own
        _log.warning("no Triton kernels, decoding will be slower: %s", first_line(error))
        return False
    for name in _OPERATORS:
        ours, truth = getattr(triton, name), getattr(reference, name)
        _LIBRARY.impl(name, _choose(ours, truth))
    _LIBRARY.impl("linear", _linear)
    return True


def _linear(x: Tensor, weight: Tensor) -> Tensor:
    """Do what `reference.linear` does; it would widen all weights first.

    All rows are one matrix here. Where the strides of x are not a matrix's, torch would multiply
    them one by one, and read the weights for each.
    """
    rows = x.reshape(-1, x.shape[-1])
    return F.linear(rows, weight).view(*x.shape[:-1], len(weight))


def _try(decode: Callable[..., Tensor], dtype: torch.dtype) -> None:
    """Let the compiler show what it can do, on one token of one stream."""
    q = torch.ones(1, 1, 64, dtype=dtype, device="cuda")
    cache = torch.ones(1, 1, 2, 64, dtype=dtype, device="cuda")
    zero = torch.zeros(1, dtype=torch.int64, device="cuda")
    layout = torch.tensor([[1], [1], [0], [1]], device="cuda")
    out = decode(
        q, q, q, q, cache, cache.clone(), None, None, None, None, zero, zero, layout, 1.0, 0.0, None
    )
    if not torch.equal(out, q):
        raise RuntimeError("they compute wrong numbers on this GPU")


def _choose(ours: Callable[..., Tensor], truth: Callable[..., Tensor]) -> Callable[..., Tensor]:
    @wraps(truth)
    def choose(q: Tensor, *rest: object) -> Tensor:
        return (truth if q.dtype is torch.float64 else ours)(q, *rest)

    return choose
