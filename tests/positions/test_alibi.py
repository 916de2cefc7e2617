from __future__ import annotations

import pytest
import torch

from streamingllm.positions.alibi import AlibiEncoding
from streamingllm.positions.none import NoEncoding
from tests.reference.frequencies import alibi_slopes

LIKE = torch.zeros(1, 4, 2, 8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_score_loses_slope_times_distance(dtype: torch.dtype) -> None:
    slopes = alibi_slopes(4)
    distances = torch.tensor([[[2, 1, 0], [3, 2, 1]], [[9, 8, 7], [0, 0, 0]]])
    bias = AlibiEncoding(slopes.float()).bias(distances, dtype)
    assert bias.shape == (2, 4, 2, 3)
    assert bias.dtype is dtype
    for row in range(2):
        for head in range(4):
            expected = (-slopes[head] * distances[row].double()).to(dtype)
            torch.testing.assert_close(bias[row, head], expected)


@pytest.mark.parametrize("encoding", [AlibiEncoding(alibi_slopes(4)), NoEncoding()])
def test_nothing_that_is_stored_depends_on_a_position(
    encoding: AlibiEncoding | NoEncoding,
) -> None:
    far = torch.tensor([[4_000_000, 4_000_001]])
    assert encoding.place(far, LIKE) is None
    assert encoding.shift(far, LIKE) is None
    assert encoding.position_limit is None
    assert encoding.has_bias == isinstance(encoding, AlibiEncoding)
