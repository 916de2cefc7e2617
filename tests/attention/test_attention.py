"""The fast attention against the plain one, over whatever a pass may be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from streamingllm.attention import dispatch, reference
from streamingllm.attention.plan import Chunk, WindowPlan
from streamingllm.positions.alibi import AlibiEncoding
from streamingllm.positions.base import PositionEncoding
from streamingllm.positions.none import NoEncoding
from streamingllm.positions.rope import RopeEncoding
from tests.reference.layer_facts import distance_matrix

TOLERANCES = {torch.float64: 1e-12, torch.float32: 2e-5, torch.bfloat16: 5e-2}


@dataclass(frozen=True)
class Call:
    """One attend call and what its inputs were drawn from."""

    plan: WindowPlan
    encoding: PositionEncoding
    num_heads: int
    num_kv_heads: int
    head_dim: int
    value_dim: int
    softcap: float | None
    learned_sinks: bool
    seed: int

    def inputs(self, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        generator = torch.Generator().manual_seed(self.seed)

        def draw(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

        batch, seq = self.plan.chunk.batch_size, self.plan.chunk.num_tokens
        columns = self.plan.num_sinks + self.plan.window_positions.shape[1]
        q = draw(batch, self.num_heads, seq, self.head_dim)
        k = draw(batch, self.num_kv_heads, columns, self.head_dim)
        v = draw(batch, self.num_kv_heads, columns, self.value_dim)
        return q, k, v, draw(self.num_heads) if self.learned_sinks else None


def chunk_of(starts: list[int], valid: Tensor | None, num_tokens: int, batch: int) -> Chunk:
    start = torch.tensor(starts)
    steps = torch.arange(num_tokens)[None] if valid is None else valid.long().cumsum(1) - 1
    return Chunk(start, start[:, None] + steps, valid, torch.zeros_like(start), batch)


@st.composite
def calls(draw: st.DrawFn) -> Call:
    batch = draw(st.integers(1, 3))
    num_tokens = draw(st.sampled_from([1, 1, 2, 5, 17, 33, 70, 300]))
    num_sinks, window_size = draw(st.integers(0, 5)), draw(st.sampled_from([1, 3, 8, 40, 270]))
    near, far = st.integers(0, 60), st.integers(1_000, 4_000_000)
    kind = draw(st.sampled_from(["one row for all", "one row each", "padded"]))
    rows = 1 if kind == "one row for all" else batch
    starts = draw(st.lists(near if draw(st.booleans()) else far, min_size=rows, max_size=rows))
    valid = None
    if kind == "padded":
        chosen = draw(st.integers(0, 2**31))
        generator = torch.Generator().manual_seed(chosen)
        valid = torch.rand(batch, num_tokens, generator=generator) < 0.7
    kv_heads = draw(st.sampled_from([1, 2, 3]))
    num_heads = kv_heads * draw(st.sampled_from([1, 2, 3]))
    head_dim = draw(st.sampled_from([8, 16]))  # the native operator takes multiples of 16
    slopes = 2.0 ** -torch.arange(1, num_heads + 1)
    sinks = torch.arange(num_sinks) * draw(st.sampled_from([1, 1, 7]))
    encodings: list[PositionEncoding] = [
        NoEncoding(),
        AlibiEncoding(slopes),
        RopeEncoding(torch.tensor([1.0, 0.1, 0.01], dtype=torch.float64)),
        RopeEncoding(torch.tensor([1.0, 0.3], dtype=torch.float64), layout="interleaved"),
    ]
    return Call(
        WindowPlan(chunk_of(starts, valid, num_tokens, batch), sinks, window_size),
        draw(st.sampled_from(encodings)),
        num_heads,
        kv_heads,
        head_dim,
        draw(st.sampled_from([head_dim, head_dim, 5])),
        draw(st.sampled_from([None, None, 2.0])),
        draw(st.booleans()),
        draw(st.integers(0, 2**31)),
    )


@settings(max_examples=300, deadline=None)
@given(call=calls(), dtype=st.sampled_from(list(TOLERANCES)))
def test_the_fast_path_equals_the_plain_one(call: Call, dtype: torch.dtype) -> None:
    q, k, v, learned = call.inputs(dtype)
    options: dict[str, Any] = {"scale": 0.4, "softcap": call.softcap, "sink_logits": learned}
    fast = dispatch.attend(q, k, v, call.plan, call.encoding, **options)
    exact = {"sink_logits": None if learned is None else learned.double()}
    plain = reference.attend(
        q.double(), k.double(), v.double(), call.plan, call.encoding, **(options | exact)
    )
    assert fast.dtype == dtype
    valid = call.plan.chunk.valid
    if valid is not None:  # what padding attends to is nobody's business
        fast, plain = fast.transpose(1, 2)[valid], plain.transpose(1, 2)[valid]
    torch.testing.assert_close(fast.double(), plain, rtol=0, atol=TOLERANCES[dtype])


@pytest.mark.parametrize("sinks", [(), (0, 1, 2, 3), (0, 4, 9)])
@pytest.mark.parametrize("start", [0, 3, 25])
@pytest.mark.parametrize("num_tokens", [1, 7, 40])
def test_a_plan_says_what_a_matrix_of_distances_says(
    sinks: tuple[int, ...], start: int, num_tokens: int
) -> None:
    window = 6
    positions = torch.tensor(sinks, dtype=torch.int64)
    plan = WindowPlan(chunk_of([start], None, num_tokens, 1), positions, window)
    expected = distance_matrix(start + num_tokens, sinks, window)
    for block in plan.blocks(16):
        keys = plan.window_positions[0, block.keys].tolist()
        sink_keys = list(sinks) if plan.num_sinks else []
        for query, distances in enumerate(plan.distances(block)[0].tolist()):
            row = block.queries.start + query
            t = start + row
            mask = [True] * len(distances)
            if block.mask is not None:
                mask = block.mask[0, 0, query].tolist()
            pairs = zip([*sink_keys, *keys], distances, mask, strict=True)
            found = sorted((j, d) for j, d, seen in pairs if seen)
            seen_by_hand = [j for j in range(t + 1) if expected[t, j] >= 0]
            assert found == [(j, int(expected[t, j])) for j in seen_by_hand]
