"""Counters of a batch, together and apart."""

from __future__ import annotations

import pytest
import torch

from streamingllm.cache.stream_positions import StreamPositions
from streamingllm.errors import RewindError

CPU = torch.device("cpu")


def advanced(positions: StreamPositions, *sizes: int, remembered: int = 100) -> StreamPositions:
    for num_tokens in sizes:
        positions.advance(positions.chunk(1, num_tokens, None, CPU), remembered)
    return positions


def test_padding_takes_no_position() -> None:
    valid = torch.tensor([[False, True, True], [True, False, True]])
    positions = advanced(StreamPositions(), 10)
    chunk = positions.chunk(2, 3, valid, CPU)
    assert chunk.positions[valid].tolist() == [10, 11, 10, 11]
    positions.advance(chunk, 100)
    assert positions.seen == [12, 12]
    assert positions.num_columns == 13


def test_reach_shrinks_once_tokens_are_forgotten_and_not_before() -> None:
    window, undo = 7, 5
    positions = advanced(StreamPositions(), 12, remembered=window + undo)
    assert positions.reach(1, window) == [12]
    advanced(positions, 1, remembered=window + undo)
    assert positions.reach(1, window) == [undo]
    positions.rewind([2], window)
    assert positions.reach(1, window) == [undo - 2]


def test_rewinding_all_streams_to_one_length_lets_one_row_speak() -> None:
    positions = StreamPositions(seen=[4, 6])
    positions.rewind([1, 3], 100)
    assert positions.seen == [3]


@pytest.mark.parametrize("back", [-1, 13, 6])
def test_impossible_rewinds(back: int) -> None:
    positions = advanced(StreamPositions(), 12, 1, remembered=12)
    with pytest.raises(RewindError, match=f"num_tokens={back}"):
        positions.rewind([back], 7)
    assert positions.seen == [13]


def test_json_and_back() -> None:
    positions = advanced(StreamPositions(), 5, 9, remembered=6)
    assert StreamPositions.from_json(positions.to_json(), lambda turns: None) == positions
