"""Triton's kernels against the plain PyTorch truth; `test_triton` runs this file.

On a GPU the kernels are compiled, elsewhere Triton's interpreter runs them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import triton.language as tl
from torch import Tensor

from streamingllm.kernels import gpu, operators, reference
from streamingllm.kernels.triton import decode_attention, launch, windowed_attention
from tests.kernels.chunk_case import DEVICE, Chunk
from tests.kernels.decode_case import BUFFERS, Case

# Weights and codes are rounded to the queries' type before they meet the values.
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}


@pytest.fixture(autouse=True)
def _wide_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton's interpreter multiplies the bits of bfloat16 as if they were whole numbers."""
    if DEVICE == "cpu":
        monkeypatch.setitem(launch._OPERANDS, torch.bfloat16, tl.float32)


BASE = Case(device=DEVICE)
DECODE_CASES = {
    "float32": BASE,
    "bfloat16": replace(BASE, dtype=torch.bfloat16),
    "float16": replace(BASE, dtype=torch.float16),
    "first token": replace(BASE, positions=(0,)),
    "last before the ring is full": replace(BASE, positions=(68, 69)),
    "sinks leave the window one by one": replace(BASE, positions=(70, 71, 72, 73)),
    "one head per key": replace(BASE, group_size=1, num_kv_heads=3),
    "groups of 3": replace(BASE, group_size=3),
    "groups of 7": replace(BASE, group_size=7, num_kv_heads=1, dtype=torch.bfloat16),
    "groups of 20": replace(BASE, group_size=20, num_kv_heads=1),
    "head size 80": replace(BASE, key_dim=80, value_dim=80),
    "head size 96": replace(BASE, key_dim=96, value_dim=96, dtype=torch.bfloat16),
    "head size 128": replace(BASE, key_dim=128, value_dim=128, dtype=torch.bfloat16),
    "head size 256": replace(BASE, key_dim=256, value_dim=256, dtype=torch.bfloat16),
    "values of another size": replace(BASE, key_dim=72, value_dim=40),
    "no sinks": replace(BASE, num_sinks=0),
    "slots of their own": replace(
        BASE,
        positions=(1000, 3, 100),
        layouts=((70, 4, 70, 4), (4, 66, 0, 4), (0, 74, 0, 30)),
        num_sinks=70,
        spare_entries=9,
    ),
    "short windows that wrap": replace(
        BASE, positions=(69, 75, 10_000), layouts=((4, 70, 2, 5), (4, 70, 4, 69), (4, 70, 4, 30))
    ),
    "int8, slots of their own": replace(
        BASE,
        positions=(1000, 3, 100),
        layouts=((70, 4, 70, 3), (4, 66, 0, 4), (0, 74, 0, 30)),
        num_sinks=70,
        spare_entries=9,
        is_quantized=True,
    ),
    "one slot twice, already in the ring": replace(
        BASE, writes=False, slots=(1, 1, 0), positions=(500, 499, 3)
    ),
    "more sinks than a span": replace(BASE, num_sinks=150, window_size=160, positions=(400, 200)),
    "window of one token": replace(BASE, window_size=1),
    "no undo ring": replace(BASE, undo_size=0),
    "long undo ring": replace(BASE, undo_size=90),
    "token already in the ring": replace(BASE, writes=False),
    "many spans": replace(BASE, window_size=700, positions=(900,), num_kv_heads=1),
    "soft-capped": replace(BASE, softcap=5.0),
    "sink logits": replace(BASE, has_sink_logits=True, positions=(0, 100)),
    "sink logits, bfloat16": replace(
        BASE, has_sink_logits=True, softcap=30.0, dtype=torch.bfloat16, group_size=8
    ),
    "int8": replace(BASE, is_quantized=True),
    "int8, bfloat16": replace(BASE, is_quantized=True, dtype=torch.bfloat16, group_size=3),
    "int8, head size 80": replace(
        BASE, is_quantized=True, key_dim=80, value_dim=80, positions=(5, 500)
    ),
    "int8, soft-capped, no undo": replace(BASE, is_quantized=True, softcap=5.0, undo_size=0),
    "int8, already in the ring": replace(BASE, is_quantized=True, writes=False),
}


@pytest.mark.parametrize("case", DECODE_CASES.values(), ids=DECODE_CASES)
def test_decode_equals_the_truth(case: Case) -> None:
    ours, truth = case.arguments(), case.arguments()
    out = decode_attention(**ours)
    _assert_close(out, reference.decode_attention(**truth))
    for name in BUFFERS:
        assert torch.equal(ours[name], truth[name]), name


@pytest.mark.parametrize("seed", range(12))
def test_random_decode_equals_the_truth(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)

    def pick(*choices: Any) -> Any:
        return choices[int(torch.randint(len(choices), (), generator=generator))]

    window_size = pick(1, 17, 64, 130)
    case = Case(
        positions=tuple(pick(0, 1, window_size - 1, window_size, 10_000 + seed) for _ in range(3)),
        dtype=pick(torch.float32, torch.bfloat16, torch.float16),
        num_kv_heads=pick(1, 2),
        group_size=pick(1, 2, 3, 5, 9),
        key_dim=pick(16, 64, 80, 96),
        value_dim=pick(16, 64, 80, 96),
        num_sinks=pick(0, 1, 4, 33),
        window_size=window_size,
        undo_size=pick(0, 1, 8),
        is_quantized=pick(False, True),
        writes=pick(True, True, False),
        softcap=pick(0.0, 0.0, 20.0),
        has_sink_logits=pick(False, True),
        seed=seed,
        device=DEVICE,
    )
    test_decode_equals_the_truth(case)


@pytest.mark.parametrize("is_quantized", [False, True])
def test_a_stream_of_steps_equals_the_truth(is_quantized: bool) -> None:
    case = replace(BASE, window_size=5, undo_size=4, is_quantized=is_quantized, positions=(0, 3))
    ours, truth = case.arguments(), case.arguments()
    for step in range(9):
        fresh = replace(case, seed=step).arguments()
        tokens = {name: fresh[name] for name in ("q", "q_for_sinks", "k", "v")}
        step_case = replace(case, positions=(step, step + 3))
        placed = {name: step_case.arguments()[name] for name in ("positions", "layout")}
        ours |= tokens | placed
        truth |= tokens | placed
        _assert_close(decode_attention(**ours), reference.decode_attention(**truth))
        for name in BUFFERS:
            assert torch.equal(ours[name], truth[name]), name


def test_a_zero_token_has_zero_codes() -> None:
    arguments = replace(BASE, is_quantized=True, positions=(7,)).arguments()
    arguments["k"].zero_()
    decode_attention(**arguments)
    row = arguments["k_cache"][arguments["slots"][0], :, 7]
    assert not row.any()


def test_spans_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    case = replace(BASE, window_size=1000, positions=(2000,), num_kv_heads=1)
    whole = decode_attention(**case.arguments())
    monkeypatch.setattr(
        "streamingllm.kernels.triton.decode.num_processors", lambda device: 1 if device else 0
    )
    _assert_close(decode_attention(**case.arguments()), whole)


CHUNKS = {
    "float32": Chunk(),
    "bfloat16": Chunk(dtype=torch.bfloat16),
    "float16": Chunk(dtype=torch.float16),
    "one token": Chunk(seq=1),
    "many tiles": Chunk(seq=200, num_old=150, window_size=150),
    "narrow window": Chunk(seq=140, num_old=2, window_size=3),
    "windows of their own": Chunk(seq=140, num_old=100, window_size=100, shortens=True),
    "wide window": Chunk(seq=70, num_old=0, window_size=1000),
    "no sinks": Chunk(num_sinks=0),
    "many sinks": Chunk(num_sinks=150, seq=160),
    "one head per key": Chunk(group_size=1),
    "groups of 3": Chunk(group_size=3),
    "head size 80": Chunk(key_dim=80, value_dim=80, dtype=torch.bfloat16),
    "head size 256": Chunk(key_dim=256, value_dim=256, dtype=torch.bfloat16),
    "values of another size": Chunk(key_dim=96, value_dim=72),
    "soft-capped": Chunk(softcap=5.0),
    "sink logits": Chunk(has_sink_logits=True),
    "sink logits, soft-capped": Chunk(has_sink_logits=True, softcap=5.0, dtype=torch.bfloat16),
}


@pytest.mark.parametrize("chunk", CHUNKS.values(), ids=CHUNKS)
def test_chunk_equals_the_truth(chunk: Chunk) -> None:
    arguments = chunk.arguments()
    out = windowed_attention(**arguments)
    _assert_close(out, reference.windowed_attention(**arguments))


def test_chunk_takes_views() -> None:
    arguments = Chunk().arguments()
    expected = windowed_attention(**arguments)
    for name in ("q", "k", "v"):
        arguments[name] = arguments[name].transpose(1, 2).contiguous().transpose(1, 2)
    assert torch.equal(windowed_attention(**arguments), expected)


@pytest.mark.skipif(DEVICE != "cuda", reason="needs a GPU")
@pytest.mark.parametrize("is_quantized", [False, True])
def test_a_captured_graph_replays_at_any_position(is_quantized: bool) -> None:
    assert gpu.load()
    case = replace(BASE, dtype=torch.bfloat16, is_quantized=is_quantized)
    ours, truth = case.arguments(), case.arguments()
    static = case.arguments()
    operators.decode_attention(**static)  # compiles
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = operators.decode_attention(**static)
    for name, x in ours.items():
        if isinstance(x, Tensor):
            static[name].copy_(x)
    for positions in ((0, 69, 70), (1, 70, 71), (500, 1, 10_000)):
        fresh = replace(case, positions=positions).arguments()
        for name in ("positions", "layout"):
            static[name].copy_(fresh[name])
            truth[name] = fresh[name]
        graph.replay()
        _assert_close(out, reference.decode_attention(**truth))
        for name in BUFFERS:
            assert torch.equal(static[name], truth[name]), name


def _assert_close(ours: Tensor, truth: Tensor) -> None:
    assert ours.dtype is truth.dtype
    assert ours.shape == truth.shape
    tolerance = TOLERANCE[truth.dtype]
    torch.testing.assert_close(ours, truth, rtol=tolerance, atol=tolerance)
