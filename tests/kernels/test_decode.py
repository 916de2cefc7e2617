"""The C++ attention of a decode step against the plain PyTorch truth."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from streamingllm.kernels import reference
from streamingllm.kernels.operators import decode_attention
from tests.kernels.decode_case import BUFFERS, Case

pytestmark = pytest.mark.usefixtures("native_kernels")

# Results in bfloat16 may be neighbours: 8 bits, of values that are hardly above 4.
TOLERANCE = {
    torch.float32: {"rtol": 1e-5, "atol": 1e-5},
    torch.bfloat16: {"rtol": 2**-7, "atol": 1e-3},
}
HEAD_SIZES = (64, 80, 96, 128, 256)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Any step that the kernels are made for: slots differ in sinks, window and visible tokens."""
    window_size = draw(st.sampled_from([1, 2, 5, 63, 64, 65, 150]))
    num_sinks, spare_entries = draw(st.integers(0, 5)), draw(st.sampled_from([0, 0, 3, 20]))
    is_quantized = draw(st.booleans())
    sizes: dict[int, tuple[int, int]] = {}
    positions, layouts = [], []
    slots = draw(st.lists(st.integers(0, 4), min_size=1, max_size=5))
    for slot in slots:
        n = draw(st.integers(0, num_sinks))
        ring_entries = window_size + spare_entries + (0 if is_quantized else num_sinks - n)
        m = draw(st.one_of(st.integers(1, ring_entries), st.just(ring_entries)))
        n, m = sizes.setdefault(slot, (n, m))
        t = draw(st.sampled_from([0, 1, m - 1, m, m + 1, 7 * m, 7 * m + m // 2, 4_000_003]))
        most = min(m, t + 1)
        layouts.append((n, m, draw(st.integers(0, n)), draw(st.integers(1, most) | st.just(most))))
        positions.append(t)
    return Case(
        positions=tuple(positions),
        layouts=tuple(layouts),
        slots=tuple(slots),
        dtype=draw(st.sampled_from([torch.float32, torch.bfloat16])),
        num_kv_heads=draw(st.integers(1, 3)),
        group_size=draw(st.integers(1, 8)),
        key_dim=draw(st.sampled_from(HEAD_SIZES)),
        value_dim=draw(st.sampled_from(HEAD_SIZES)),
        num_sinks=num_sinks,
        window_size=window_size,
        spare_entries=spare_entries,
        undo_size=draw(st.sampled_from([0, 1, 4, 70])),
        num_slots=5,
        is_quantized=is_quantized,
        writes=draw(st.integers(0, 3)) > 0,
        softcap=draw(st.sampled_from([0.0, 0.0, 5.0])),
        has_sink_logits=draw(st.booleans()),
        seed=draw(st.integers(0, 99)),
    )


def assert_equals_the_truth(case: Case) -> None:
    ours, truth = case.arguments(), case.arguments()
    out, expected = decode_attention(**ours), reference.decode_attention(**truth)
    assert out.dtype is expected.dtype
    torch.testing.assert_close(out, expected, **TOLERANCE[case.dtype])
    for name in BUFFERS:
        assert torch.equal(ours[name], truth[name]), name


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(case=cases())
def test_any_step_equals_the_truth(num_threads: int, case: Case) -> None:
    assert_equals_the_truth(case)


@pytest.mark.parametrize("is_quantized", [False, True])
@pytest.mark.parametrize("start", [0, 60, 69, 500])
def test_tokens_of_one_stream_take_turns(start: int, is_quantized: bool) -> None:
    run = tuple(range(start, start + 12))
    assert_equals_the_truth(
        Case(
            positions=(*run[:2], 33, *run[2:], 4),
            slots=(2, 2, 0, *(2 for _ in run[2:]), 1),
            is_quantized=is_quantized,
            undo_size=5,
        )
    )


@pytest.mark.parametrize("is_quantized", [False, True])
@pytest.mark.parametrize("length", [1, 2, 5, 6, 64, 69, 70])
def test_a_window_that_is_shortened_wraps_around_its_ring(length: int, is_quantized: bool) -> None:
    positions = (69, 70, 74, 75, 139, 10_000)
    layouts = tuple((4, 70, 3, length) for _ in positions)
    shape = {"num_slots": 6, "is_quantized": is_quantized}
    assert_equals_the_truth(Case(positions=positions, layouts=layouts, **shape))


@pytest.mark.parametrize("is_quantized", [False, True])
def test_slots_of_one_batch_have_sinks_and_windows_of_their_own(is_quantized: bool) -> None:
    case = Case(
        positions=(1000, 3, 100, 5000),
        layouts=((90, 10, 90, 10), (4, 96, 0, 4), (0, 64, 0, 30), (1, 7, 1, 7)),
        num_sinks=90,
        window_size=100,
        undo_size=8,
        is_quantized=is_quantized,
    )
    assert_equals_the_truth(case)


@pytest.mark.parametrize("is_quantized", [False, True])
def test_entries_that_a_slot_does_not_use_are_never_read(is_quantized: bool) -> None:
    layouts = ((2, 50, 2, 50), (0, 30, 0, 7))
    case = Case(positions=(500, 41), layouts=layouts, is_quantized=is_quantized)
    arguments, expected = case.arguments(), decode_attention(**case.arguments())
    for b, (slot, (n, m, *_)) in enumerate(zip(arguments["slots"], layouts, strict=True)):
        for name in ("k_cache", "v_cache"):
            cache = arguments[name][slot]
            unused = cache[:, m if is_quantized else n + m :]
            unused.fill_(-1 if is_quantized else torch.nan)  # -1: bytes of a scale that is nan
        assert torch.equal(decode_attention(**arguments)[b], expected[b])


@pytest.mark.parametrize("head_size", HEAD_SIZES)
@pytest.mark.parametrize("group_size", range(1, 9))
def test_every_head_size_and_group_size(head_size: int, group_size: int) -> None:
    shape = {"key_dim": head_size, "value_dim": head_size, "group_size": group_size}
    base = Case(**shape, seed=group_size)
    for is_quantized in (False, True):
        for dtype in (torch.float32, torch.bfloat16):
            assert_equals_the_truth(replace(base, dtype=dtype, is_quantized=is_quantized))


@pytest.mark.parametrize("head_size", [16, 32, 48])
def test_smaller_heads_work_too(head_size: int) -> None:
    assert_equals_the_truth(Case(key_dim=head_size, value_dim=head_size))


def test_a_long_window_is_cut_among_threads(num_threads: int) -> None:
    one_head = Case(positions=(5000,), window_size=2044, num_kv_heads=1, group_size=3)
    assert_equals_the_truth(one_head)
    many = Case(positions=(7, 9000, 2043, 2044, 70), window_size=2044, num_slots=5)
    assert_equals_the_truth(many)
    assert_equals_the_truth(replace(many, is_quantized=True, dtype=torch.bfloat16))


@pytest.mark.parametrize("is_quantized", [False, True])
def test_a_stream_of_steps_equals_the_truth(is_quantized: bool) -> None:
    case = Case(window_size=5, undo_size=4, is_quantized=is_quantized, positions=(0, 3))
    ours, truth = case.arguments(), case.arguments()
    for step in range(12):
        fresh = replace(case, seed=step).arguments()
        tokens = {name: fresh[name] for name in ("q", "q_for_sinks", "k", "v")}
        step_case = replace(case, positions=(step, step + 3))
        placed = {name: step_case.arguments()[name] for name in ("positions", "layout")}
        ours |= tokens | placed
        truth |= tokens | placed
        expected = reference.decode_attention(**truth)
        torch.testing.assert_close(decode_attention(**ours), expected, rtol=1e-5, atol=1e-5)
        for name in BUFFERS:
            assert torch.equal(ours[name], truth[name]), name


@pytest.mark.parametrize("is_quantized", [False, True])
def test_caches_and_tokens_may_be_views(is_quantized: bool) -> None:
    case = Case(is_quantized=is_quantized)
    ours, truth = case.arguments(), case.arguments()
    names = (*BUFFERS, *(("k_sinks", "v_sinks") if is_quantized else ()))
    ours |= {name: _in_a_larger_tensor(ours[name]) for name in names}
    ours |= {name: _with_strides(ours[name]) for name in ("q", "q_for_sinks", "k", "v")}
    expected = reference.decode_attention(**truth)
    torch.testing.assert_close(decode_attention(**ours), expected, rtol=1e-5, atol=1e-5)
    for name in BUFFERS:
        assert torch.equal(ours[name], truth[name]), name


def _in_a_larger_tensor(x: Tensor) -> Tensor:
    """The same entries between those of other streams, heads and entries."""
    streams, heads, entries, width = x.shape
    larger = x.new_ones(streams + 2, heads + 1, entries + 5, width)
    view = larger[1:-1, 1:, :entries]
    view.copy_(x)
    return view


def _with_strides(x: Tensor) -> Tensor:
    return x.transpose(0, 1).contiguous().transpose(0, 1)


def test_rows_that_do_not_lie_side_by_side_are_refused() -> None:
    arguments = Case().arguments()
    arguments["k_cache"] = arguments["k_cache"].mT.contiguous().mT
    with pytest.raises(RuntimeError, match=r"k_cache has strides .* side by side"):
        decode_attention(**arguments)


def test_streams_that_do_not_step_stay_as_they_are() -> None:
    ours, before = Case(num_slots=9).arguments(), Case(num_slots=9).arguments()
    decode_attention(**ours)
    others = [slot for slot in range(9) if slot not in ours["slots"]]
    for name in BUFFERS:
        assert torch.equal(ours[name][others], before[name][others]), name


def test_large_scores_do_not_overflow() -> None:
    case = Case(positions=(500,))
    ours, truth = case.arguments(), case.arguments()
    for each in (ours, truth):
        each["q"] *= 1000
        each["q_for_sinks"] *= -1000
    out = decode_attention(**ours)
    torch.testing.assert_close(out, reference.decode_attention(**truth), rtol=1e-4, atol=1e-4)


def test_a_zero_token_has_zero_codes() -> None:
    arguments = Case(is_quantized=True, positions=(7,)).arguments()
    arguments["k"].zero_()
    decode_attention(**arguments)
    assert not arguments["k_cache"][arguments["slots"][0], :, 7].any()


@pytest.mark.parametrize("is_quantized", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
def test_what_is_not_a_number_does_not_become_one(
    broken: float, dtype: torch.dtype, is_quantized: bool
) -> None:
    for name in ("k", "v"):
        arguments = Case(is_quantized=is_quantized, dtype=dtype, positions=(7,)).arguments()
        arguments[name][0, 1, 5] = broken
        out = decode_attention(**arguments)
        assert out[:, :2].isfinite().all()  # heads that do not see it
        assert not out[:, 2:].isfinite().all(dim=-1).any()


def test_a_learned_score_that_outweighs_all_leaves_nothing() -> None:
    arguments = Case(has_sink_logits=True).arguments()
    arguments["sink_logits"] = torch.full_like(arguments["sink_logits"], 1e4)
    assert not decode_attention(**arguments).any()
