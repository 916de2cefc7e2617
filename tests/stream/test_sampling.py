"""Each sampling option does what its name says."""

from __future__ import annotations

import pytest
import torch

from streamingllm import SamplingParams
from streamingllm.errors import ConfigError
from streamingllm.stream.next_token import choose

LOGITS = torch.tensor([[4.0, 3.0, 2.0, 1.0, -5.0]]).expand(4000, -1)
NO_IDS = torch.zeros(4000, 0, dtype=torch.int64)


def drawn(sampling: SamplingParams) -> set[int]:
    generator = torch.Generator().manual_seed(0)
    return set(choose(sampling, LOGITS, recent_ids=NO_IDS, generator=generator).tolist())


@pytest.mark.parametrize(
    ("sampling", "tokens"),
    [
        (SamplingParams(), {0}),
        (SamplingParams(temperature=1.0), {0, 1, 2, 3}),
        (SamplingParams(temperature=30.0), {0, 1, 2, 3, 4}),
        (SamplingParams(temperature=1.0, top_k=2), {0, 1}),
        (SamplingParams(temperature=1.0, top_p=0.5), {0}),
        (SamplingParams(temperature=1.0, min_p=0.2), {0, 1}),
    ],
)
def test_which_tokens_can_be_drawn(sampling: SamplingParams, tokens: set[int]) -> None:
    assert drawn(sampling) == tokens


def test_temperature_one_draws_in_proportion() -> None:
    generator = torch.Generator().manual_seed(0)
    tokens = choose(SamplingParams(1.0), LOGITS, recent_ids=NO_IDS, generator=generator)
    shares = torch.bincount(tokens, minlength=5) / len(tokens)
    torch.testing.assert_close(shares, LOGITS[0].softmax(0), atol=0.03, rtol=0)


def test_repetition_penalty_looks_at_recent_tokens() -> None:
    penalty = SamplingParams(repetition_penalty=2.0)
    choice = choose(penalty, LOGITS[:2], recent_ids=torch.tensor([[0], [2]]))
    assert choice.tolist() == [1, 0]


@pytest.mark.parametrize("field", ["temperature", "top_k", "top_p", "min_p", "repetition_penalty"])
def test_a_bad_value_is_named(field: str) -> None:
    with pytest.raises(ConfigError, match=f"{field}=-1"):
        SamplingParams(**{field: -1})
