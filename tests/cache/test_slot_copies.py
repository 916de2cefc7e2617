"""Copies of entries, and which of them take tokens off a ring again."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from streamingllm.cache.slot_copies import SlotCopies, rewind_copies


def entries(*shape: int) -> Tensor:
    return torch.arange(math.prod(shape)).view(shape).float()


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ([], []),
        ([2], [0]),
        ([0, 1, 2], [3, 4, 5]),
        ([4, 5, 0, 1], [0, 1, 2, 3]),  # a run that wraps around
        ([0, 2, 4], [5, 3, 1]),  # no neighbours
        ([1, 2, 4, 5], [0, 1, 2, 3]),
    ],
)
def test_the_same_entries_of_every_stream(source: list[int], target: list[int]) -> None:
    copies = SlotCopies(torch.tensor(source, dtype=torch.int64), torch.tensor(target).long())
    old, new = entries(2, 3, 6, 4), -entries(2, 3, 6, 4)
    expected = new.clone()
    for s, t in zip(source, target, strict=True):
        expected[:, :, t] = old[:, :, s]
    copies.apply(old, new)
    assert torch.equal(new, expected)


def test_entries_of_some_streams() -> None:
    copies = SlotCopies(torch.tensor([0, 5, 2]), torch.tensor([3, 3, 4]), torch.tensor([0, 1, 1]))
    old, new = entries(2, 3, 6, 4), -entries(2, 3, 6, 4)
    expected = new.clone()
    for row, s, t in ((0, 0, 3), (1, 5, 3), (1, 2, 4)):
        expected[row, :, t] = old[row, :, s]
    copies.apply(old, new)
    assert torch.equal(new, expected)


@pytest.mark.parametrize("rows", [None, torch.tensor([1, 0])])
def test_copies_in_the_other_direction_undo_them(rows: Tensor | None) -> None:
    copies = SlotCopies(torch.tensor([1, 4]), torch.tensor([0, 2]), rows)
    before = entries(2, 1, 6, 1)
    there, back = torch.zeros(2, 1, 6, 1), before.clone()
    copies.apply(before, there)
    back[:, :, [1, 4]] = 0
    copies.reversed().apply(there, back)
    if rows is None:
        assert torch.equal(back, before)
    else:
        assert back[1, 0, 1] == before[1, 0, 1]
        assert back[0, 0, 4] == before[0, 0, 4]
        assert back[0, 0, 1] == back[1, 0, 4] == 0


class PlainRing:
    """One stream's ring and undo buffer, written token by token; an entry is its position."""

    def __init__(self, window_size: int, undo_size: int) -> None:
        self.ring, self.undo = torch.full((window_size,), -1), torch.full((undo_size,), -1)

    def append(self, position: int) -> None:
        slot = position % len(self.ring)
        overwritten = int(self.ring[slot])
        if overwritten >= 0:
            self.undo[overwritten % len(self.undo)] = overwritten
        self.ring[slot] = position


@pytest.mark.parametrize("num_seen", [1, 4, 7, 8, 9, 20, 41])
@pytest.mark.parametrize("back", [0, 1, 3, 6])
def test_a_rewound_ring_holds_what_it_held(num_seen: int, back: int) -> None:
    window_size, undo_size = 7, 6
    back = min(back, num_seen)
    written, expected = (PlainRing(window_size, undo_size) for _ in range(2))
    for position in range(num_seen):
        written.append(position)
        if position < num_seen - back:
            expected.append(position)
    copies = rewind_copies(torch.tensor([num_seen]), torch.tensor([back]), window_size, undo_size)
    copies.apply(written.undo.view(1, 1, -1, 1), written.ring.view(1, 1, -1, 1))
    visible = range(max(0, num_seen - back - window_size), num_seen - back)
    for position in visible:
        slot = position % window_size
        assert written.ring[slot] == expected.ring[slot] == position


def test_each_stream_is_rewound_by_its_own_number() -> None:
    copies = rewind_copies(torch.tensor([10, 12]), torch.tensor([2, 0]), 4, 3)
    assert copies.rows is not None
    # Stream 0 sees tokens 4 to 7 again; 8 and 9 have overwritten 4 and 5.
    assert copies.rows.tolist() == [0, 0]
    assert copies.target.tolist() == [4 % 4, 5 % 4]
    assert copies.source.tolist() == [4 % 3, 5 % 3]
