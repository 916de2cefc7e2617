"""Triton's kernels compile for GPUs that need not be there; `test_triton` runs this file.

The interpreter takes code that the compiler refuses, and knows no limits of shared memory.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from streamingllm.kernels.rows import encode_rows
from streamingllm.kernels.triton import decode, windowed

SHARED_BYTES = 99 * 1024  # of the smallest GPUs with bfloat16; an A100 has 163 KiB
_TYPES = {
    torch.float32: "*fp32",
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.int8: "*i8",
    torch.int64: "*i64",
}


class Compiler:
    """Stands where a kernel stood and compiles it for what it is called with."""

    def __init__(self, kernel: Any, capability: int) -> None:
        self.kernel = kernel
        self.target = GPUTarget("cuda", capability, 32)
        self.shared_bytes: list[int] = []

    def __getitem__(self, grid: tuple[int, ...]) -> Compiler:
        return self

    def __call__(self, *args: Any, **options: Any) -> None:
        names = self.kernel.arg_names
        constants = {name: options.pop(name) for name in names[len(args) :]}
        # Triton takes arguments that are 1 for constants, which not every expression can be.
        constants |= {
            name: 1 for name, x in zip(names, args, strict=False) if type(x) is int and x == 1
        }
        signature = dict(zip(names, map(_type_of, args), strict=False))
        signature |= dict.fromkeys(constants, "constexpr")
        source = ASTSource(self.kernel, signature=signature, constexprs=constants)
        compiled = triton.compile(source, target=self.target, options=options)
        self.shared_bytes.append(compiled.metadata.shared)


def _type_of(x: Any) -> str:
    if isinstance(x, Tensor):
        return _TYPES[x.dtype]
    return "fp32" if isinstance(x, float) else "i32"


def compilers(monkeypatch: pytest.MonkeyPatch, module: Any, capability: int) -> list[Compiler]:
    """Put compilers where the kernels of a wrapper are."""
    found = []
    for name in ("write_tokens", "attend_spans", "merge_spans", "attend_chunk"):
        if hasattr(module, name):
            found.append(Compiler(getattr(module, name), capability))
            monkeypatch.setattr(module, name, found[-1])
    return found


@pytest.mark.parametrize(
    ("capability", "dtype", "is_quantized", "group_size", "dim", "softcap", "window_size"),
    [
        (90, torch.bfloat16, False, 1, 128, 0.0, 60),
        (80, torch.float32, True, 3, 80, 20.0, 1),
    ],
)
def test_decode_compiles(
    monkeypatch: pytest.MonkeyPatch,
    capability: int,
    dtype: torch.dtype,
    is_quantized: bool,
    group_size: int,
    dim: int,
    softcap: float,
    window_size: int,
) -> None:
    kernels = compilers(monkeypatch, decode, capability)
    q, new = torch.zeros(1, group_size, dim, dtype=dtype), torch.zeros(1, 1, dim, dtype=dtype)
    sinks = torch.zeros(1, 1, 4, dim, dtype=dtype)
    ring = torch.zeros(1, 1, window_size, dim, dtype=dtype)
    cache = encode_rows(ring) if is_quantized else torch.cat((sinks, ring), dim=2)
    beside = sinks if is_quantized else None
    first, layout = torch.zeros(1, dtype=torch.int64), torch.tensor([[4], [window_size], [0], [1]])
    decode.decode_attention(
        q, q, new, new, cache, cache, cache, cache, beside, beside, first, first, layout, 1.0,
        softcap, q[0, :, 0],
    )  # fmt: skip
    for kernel in kernels:
        assert max(kernel.shared_bytes) <= SHARED_BYTES


@pytest.mark.parametrize(
    ("capability", "dtype", "dim"), [(90, torch.bfloat16, 128), (80, torch.float32, 256)]
)
def test_chunks_compile(
    monkeypatch: pytest.MonkeyPatch, capability: int, dtype: torch.dtype, dim: int
) -> None:
    (kernel,) = compilers(monkeypatch, windowed, capability)
    q, k = torch.zeros(1, 2, 64, dim, dtype=dtype), torch.zeros(1, 1, 90, dim, dtype=dtype)
    seen, lengths = torch.zeros(64, dtype=torch.int64), torch.ones(64, dtype=torch.int64)
    windowed.windowed_attention(q, q, k, k, seen, lengths, 4, 1.0, 0.0, None)
    assert max(kernel.shared_bytes) <= SHARED_BYTES
