"""Rotations are exact at any position, and shifts of tokens are shifts of positions."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from streamingllm.positions.rope import Columns, Layout, RopeEncoding

LAYOUTS: list[Layout] = ["half", "interleaved"]
INV_FREQ = torch.tensor([1.0, 0.1, 1e-4], dtype=torch.float64)


def turned_by_hand(x: Tensor, position: int, layout: Layout, start: int) -> list[float]:
    """Multiply each pair, as a complex number, by exp(i theta position)."""
    out = x.tolist()
    for pair, theta in enumerate(INV_FREQ.tolist()):
        first = start + (2 * pair if layout == "interleaved" else pair)
        second = first + (1 if layout == "interleaved" else len(INV_FREQ))
        angle = math.remainder(theta * position, 2 * math.pi)
        turned = complex(out[first], out[second]) * complex(math.cos(angle), math.sin(angle))
        out[first], out[second] = turned.real, turned.imag
    return [float(number) for number in out]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("start", [0, 2])
@pytest.mark.parametrize("position", [0, 7, 4_000_000, 10**9])
def test_a_rotation_is_a_product_of_complex_numbers(
    layout: Layout, start: int, position: int
) -> None:
    encoding = RopeEncoding(INV_FREQ, layout=layout, key_start=start)
    x = torch.randn(1, 1, 1, 9, dtype=torch.float64)
    turned = encoding.place(torch.tensor([[position]]), like=x).keys(x)
    expected = torch.tensor(turned_by_hand(x[0, 0, 0], position, layout, start))
    torch.testing.assert_close(turned[0, 0, 0].float(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_float32_scores_depend_on_the_difference_alone(layout: Layout) -> None:
    encoding = RopeEncoding(INV_FREQ, layout=layout)
    q, k = torch.randn(2, 1, 1, 1, 6)
    scores = []
    for origin in (0, 4_000_000):
        at = (torch.tensor([[origin + p]]) for p in (50, 3))
        shift_q, shift_k = (encoding.place(p, like=q) for p in at)
        scores.append(float((shift_q.queries(q) * shift_k.keys(k)).sum()))
    assert scores[0] == pytest.approx(scores[1], abs=1e-5)


def test_scaling_is_applied_when_a_token_is_placed_and_never_again() -> None:
    encoding = RopeEncoding(INV_FREQ, attention_scaling=1.5)
    x = torch.randn(2, 3, 4, 6, dtype=torch.float64)
    positions = torch.arange(4)[None]
    placed = encoding.place(positions, like=x).keys(x)
    moved = encoding.shift(torch.full((1, 4), 100), like=x).keys(placed)
    torch.testing.assert_close(moved, encoding.place(positions + 100, like=x).keys(x))
    assert float(placed.norm() / x.norm()) == pytest.approx(1.5)


def test_queries_of_latent_attention_turn_in_their_last_dimensions() -> None:
    encoding = RopeEncoding(INV_FREQ, query_from_end=True, in_values=True)
    q, k = torch.randn(1, 2, 1, 10), torch.randn(1, 1, 1, 6)
    shift = encoding.shift(torch.tensor([[5]]), like=q)
    assert torch.equal(shift.queries(q)[..., :4], q[..., :4])
    torch.testing.assert_close(shift.queries(q)[..., 4:], shift.keys(q[..., 4:]))
    assert shift.keys(k).shape == k.shape


def test_tables_in_each_form() -> None:
    encoding, positions = RopeEncoding(INV_FREQ), torch.tensor([[3, 4_000_000]])
    widths: dict[Columns, int] = {"concatenated": 6, "repeated": 6, "single": 3}
    for columns, width in widths.items():
        cos, sin = encoding.tables(positions, columns, torch.float32)
        assert cos.shape == sin.shape == (1, 2, width)
        torch.testing.assert_close(cos**2 + sin**2, torch.ones_like(cos))
    turns = encoding.tables(positions, "complex", torch.complex64)
    assert isinstance(turns, Tensor)
    torch.testing.assert_close(turns.abs(), torch.ones(1, 2, 3))
