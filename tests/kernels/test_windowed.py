"""The native attention of a chunk against plain arithmetic in float64, on all instruction sets."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from streamingllm.kernels import native, operators, reference

pytestmark = pytest.mark.skipif(not native.load(), reason="needs the native kernels")

# Weights and results are rounded to bfloat16, each by at most 1 part in 512.
ROUNDING = {torch.float32: 2e-6, torch.bfloat16: 2.0**-8}


@dataclass(frozen=True)
class Call:
    """One call of the operator, and what its inputs are drawn from."""

    batch: int = 1
    num_kv_heads: int = 2
    per_group: int = 3
    num_tokens: int = 40
    num_old: int = 30
    window_size: int = 30
    num_sinks: int = 4
    key_dim: int = 64
    value_dim: int = 64
    softcap: float = 0.0
    learned_sinks: bool = False
    shortens: bool = False
    seed: int = 0

    def inputs(self, dtype: torch.dtype) -> tuple[Any, ...]:
        generator = torch.Generator().manual_seed(self.seed)

        def draw(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator).to(dtype)

        num_heads, n = self.num_kv_heads * self.per_group, self.num_sinks
        # As models hand them over: queries transposed, keys a part of something longer.
        q, q_for_sinks = (
            draw(self.batch, self.num_tokens, num_heads, self.key_dim).transpose(1, 2)
            for _ in range(2)
        )
        columns = n + self.num_old + self.num_tokens
        k = draw(self.batch, self.num_kv_heads, columns + 3, self.key_dim)[:, :, 3:]
        v = draw(self.batch, self.num_kv_heads, columns, self.value_dim)
        seen = torch.randint(0, n + 1, (self.num_tokens,), generator=generator).sort().values
        lengths = torch.arange(1, self.num_tokens + 1) + self.num_old
        lengths = lengths.clamp(max=self.window_size)
        if self.shortens:  # any number of the tokens that the window could show
            lengths = (torch.rand(self.num_tokens, generator=generator) * lengths).long() + 1
        learned = draw(num_heads) if self.learned_sinks else None
        scale = 1.5 * self.key_dim**-0.5
        return q, q_for_sinks, k, v, seen, lengths, n, scale, self.softcap, learned


@st.composite
def calls(draw: st.DrawFn) -> Call:
    window_size = draw(st.sampled_from([1, 2, 17, 64, 300, 1000]))
    return Call(
        batch=draw(st.integers(1, 2)),
        num_kv_heads=draw(st.integers(1, 3)),
        per_group=draw(st.sampled_from([1, 2, 3, 4, 7, 13])),
        num_tokens=draw(st.integers(1, 140)),
        num_old=draw(st.integers(0, min(window_size, 400))),
        window_size=window_size,
        num_sinks=draw(st.sampled_from([0, 1, 4, 5, 130])),
        key_dim=draw(st.sampled_from([16, 48, 64, 80, 128])),
        value_dim=draw(st.sampled_from([16, 64, 112])),
        softcap=draw(st.sampled_from([0.0, 0.0, 3.0])),
        learned_sinks=draw(st.booleans()),
        shortens=draw(st.booleans()),
        seed=draw(st.integers(0, 2**31)),
    )


def check(call: Call, dtype: torch.dtype) -> None:
    inputs = call.inputs(dtype)
    found = operators.windowed_attention(*inputs)
    wide = (x.double() if isinstance(x, Tensor) and x.is_floating_point() else x for x in inputs)
    expected = reference.windowed_attention(*wide)
    assert found.dtype == dtype
    size = float(inputs[3].abs().max())
    torch.testing.assert_close(
        found.double(), expected, rtol=ROUNDING[dtype], atol=ROUNDING[dtype] * size
    )


@settings(max_examples=150, deadline=None)
@given(call=calls(), dtype=st.sampled_from(list(ROUNDING)))
@example(
    Call(key_dim=256, value_dim=256, num_tokens=20, num_old=500, window_size=500), torch.float32
)
@example(Call(per_group=71, num_kv_heads=1, num_tokens=9), torch.bfloat16)
@example(Call(num_tokens=600, num_old=0, window_size=1020, num_kv_heads=1), torch.bfloat16)
@example(Call(num_tokens=600, num_old=508, window_size=508, num_kv_heads=1), torch.float32)
def test_equals_the_reference(call: Call, dtype: torch.dtype) -> None:
    check(call, dtype)


@pytest.mark.parametrize("dtype", list(ROUNDING))
def test_large_scores_and_hidden_columns_leave_no_trace(dtype: torch.dtype) -> None:
    q, _, k, v, _, *rest = Call(num_tokens=50, num_sinks=4).inputs(dtype)
    q, k = q * 40, k * 40
    k[:, :, :4] *= 1000  # sinks that nothing sees yet
    seen = torch.zeros(50, dtype=torch.int64)
    found = operators.windowed_attention(q, q, k, v, seen, *rest)
    expected = reference.windowed_attention(
        q.double(), q.double(), k.double(), v.double(), seen, *rest
    )
    # Scores in the thousands: the softmax picks one value, unless two scores nearly tie.
    assert float((found.double() - expected).abs().median()) <= ROUNDING[dtype]
    assert bool(found.isfinite().all())


@pytest.mark.parametrize("num_threads", [2, 5])
def test_threads_share_the_work(num_threads: int) -> None:
    call = Call(num_tokens=130, window_size=90, num_old=90, batch=2)
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        check(call, torch.bfloat16)
        check(call, torch.float32)
    finally:
        torch.set_num_threads(before)


def test_what_it_cannot_compute_is_refused() -> None:
    q, *rest = Call(key_dim=16).inputs(torch.float32)
    with pytest.raises(RuntimeError, match="multiple of 16"):
        operators.windowed_attention(q[..., :8], q[..., :8], rest[1][..., :8], *rest[2:])
    with pytest.raises(RuntimeError, match="k is BFloat16; it must be Float"):
        operators.windowed_attention(q, q, rest[1].bfloat16(), *rest[2:])


@pytest.mark.skipif("STREAMINGLLM_ISA" in os.environ, reason="is the inner run")
def test_older_processors_compute_the_same() -> None:
    environment = {**os.environ, "STREAMINGLLM_ISA": "avx2", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-1000:]
