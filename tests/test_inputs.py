"""Token ids in every accepted shape become one shape."""

from __future__ import annotations

import pytest
import torch

from streamingllm.errors import InputError
from streamingllm.inputs import check_tokens

CPU = torch.device("cpu")


def test_one_stream_and_a_batch() -> None:
    single = check_tokens(torch.tensor([1, 2], dtype=torch.int32), None, 5, CPU)
    batch = check_tokens(torch.tensor([[1, 2], [3, 4]]), None, 5, CPU)
    assert (single.is_single, tuple(single.ids.shape), single.ids.dtype) == (
        True,
        (1, 2),
        torch.int64,
    )
    assert (batch.is_single, tuple(batch.ids.shape)) == (False, (2, 2))


def test_a_mask_without_padding_is_no_mask() -> None:
    ids = torch.tensor([[1, 2]])
    assert check_tokens(ids, torch.ones_like(ids), 5, CPU).valid is None
    valid = check_tokens(ids, torch.tensor([[0, 1]]), 5, CPU).valid
    assert valid is not None
    assert valid.tolist() == [[False, True]]


def test_a_mask_must_fit() -> None:
    with pytest.raises(InputError, match=r"attention_mask has shape \(1, 3\)"):
        check_tokens(torch.tensor([[1, 2]]), torch.ones(1, 3), 5, CPU)
