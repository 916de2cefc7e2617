"""Counters of a batch, together and apart."""

from __future__ import annotations

import pytest
import torch

from streamingllm.cache.clock import StreamClock
from streamingllm.errors import RewindError

CPU = torch.device("cpu")


def advanced(clock: StreamClock, *sizes: int, remembered: int = 100) -> StreamClock:
    for num_tokens in sizes:
        clock.advance(clock.chunk(1, num_tokens, None, CPU), remembered)
    return clock


def test_padding_takes_no_position() -> None:
    valid = torch.tensor([[False, True, True], [True, False, True]])
    clock = advanced(StreamClock(), 10)
    chunk = clock.chunk(2, 3, valid, CPU)
    assert chunk.positions[valid].tolist() == [10, 11, 10, 11]
    clock.advance(chunk, 100)
    assert clock.seen == [12, 12]
    assert clock.num_columns == 13


def test_reach_shrinks_once_tokens_are_forgotten_and_not_before() -> None:
    window, undo = 7, 5
    clock = advanced(StreamClock(), 12, remembered=window + undo)
    assert clock.reach(1, window) == [12]
    advanced(clock, 1, remembered=window + undo)
    assert clock.reach(1, window) == [undo]
    clock.rewind([2], window)
    assert clock.reach(1, window) == [undo - 2]


def test_rewinding_all_streams_to_one_length_lets_one_row_speak() -> None:
    clock = StreamClock(seen=[4, 6])
    clock.rewind([1, 3], 100)
    assert clock.seen == [3]


@pytest.mark.parametrize("back", [-1, 13, 6])
def test_impossible_rewinds(back: int) -> None:
    clock = advanced(StreamClock(), 12, 1, remembered=12)
    with pytest.raises(RewindError, match=f"num_tokens={back}"):
        clock.rewind([back], 7)
    assert clock.seen == [13]


def test_json_and_back() -> None:
    clock = advanced(StreamClock(), 5, 9, remembered=6)
    assert StreamClock.from_json(clock.to_json()) == clock
