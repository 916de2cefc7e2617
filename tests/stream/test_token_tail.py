from __future__ import annotations

import pytest
import torch

from streamingllm.stream.token_tail import TokenTail


def tail_of(*streams: list[int], limit: int = 4) -> TokenTail:
    return TokenTail(limit, streams)


def test_the_last_tokens_of_each_stream_are_remembered() -> None:
    tail = TokenTail(4)
    assert tail.num_streams == 0
    tail.begin(2)
    assert tail.num_streams == 2
    tail.extend(torch.tensor([[1, 2, 3], [4, 5, 6]]), None)
    tail.extend(torch.tensor([[7, 8], [9, 10]]), None)
    assert tail.to_lists() == [[2, 3, 7, 8], [5, 6, 9, 10]]


def test_padding_is_not_remembered() -> None:
    tail = TokenTail(4)
    tail.begin(2)
    valid = torch.tensor([[False, True, True], [False, False, True]])
    tail.extend(torch.tensor([[0, 0, 3], [0, 5, 6]]), valid)
    assert tail.to_lists() == [[0, 3], [6]]


def test_a_batch_of_another_size_is_refused() -> None:
    tail = tail_of([1], [2])
    with pytest.raises(ValueError, match="zip"):
        tail.extend(torch.tensor([[1], [2], [3]]), None)


def test_tokens_are_taken_back() -> None:
    tail = tail_of([1, 2, 3], [4, 5, 6])
    tail.take_back(2)
    assert tail.to_lists() == [[1], [4]]
    assert tail.pop_last() == [1, 4]
    assert tail.pop_last() == [0, 0]


def test_the_common_end_is_as_long_as_the_shortest() -> None:
    assert tail_of([1, 2, 3], [4], [5, 6]).common() == [[3], [4], [6]]
    assert tail_of([1, 2], []).common() == [[], []]


def test_a_copy_is_independent() -> None:
    tail = tail_of([1, 2], [3, 4], limit=2)
    copy = tail.copy()
    copy.extend(torch.tensor([[5], [6]]), None)
    assert tail.to_lists() == [[1, 2], [3, 4]]
    assert copy.to_lists() == [[2, 5], [4, 6]]
