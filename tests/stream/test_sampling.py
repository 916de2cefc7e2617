"""Each sampling option does what its name says."""

from __future__ import annotations

import pytest
import torch

from streamingllm import Sampling
from streamingllm.errors import ConfigError

LOGITS = torch.tensor([[4.0, 3.0, 2.0, 1.0, -5.0]]).expand(4000, -1)
NO_IDS = torch.zeros(4000, 0, dtype=torch.int64)


def drawn(sampling: Sampling) -> set[int]:
    generator = torch.Generator().manual_seed(0)
    return set(sampling.choose(LOGITS, NO_IDS, generator).tolist())


@pytest.mark.parametrize(
    ("sampling", "tokens"),
    [
        (Sampling(), {0}),
        (Sampling(temperature=1.0), {0, 1, 2, 3}),
        (Sampling(temperature=30.0), {0, 1, 2, 3, 4}),
        (Sampling(temperature=1.0, top_k=2), {0, 1}),
        (Sampling(temperature=1.0, top_p=0.5), {0}),
        (Sampling(temperature=1.0, min_p=0.2), {0, 1}),
    ],
)
def test_which_tokens_can_be_drawn(sampling: Sampling, tokens: set[int]) -> None:
    assert drawn(sampling) == tokens


def test_temperature_one_draws_in_proportion() -> None:
    generator = torch.Generator().manual_seed(0)
    tokens = Sampling(temperature=1.0).choose(LOGITS, NO_IDS, generator)
    shares = torch.bincount(tokens, minlength=5) / len(tokens)
    torch.testing.assert_close(shares, LOGITS[0].softmax(0), atol=0.03, rtol=0)


def test_repetition_penalty_looks_at_recent_tokens() -> None:
    choice = Sampling(repetition_penalty=2.0).choose(LOGITS[:2], torch.tensor([[0], [2]]))
    assert choice.tolist() == [1, 0]


@pytest.mark.parametrize("field", ["temperature", "top_k", "top_p", "min_p", "repetition_penalty"])
def test_a_bad_value_is_named(field: str) -> None:
    with pytest.raises(ConfigError, match=f"{field}=-1"):
        Sampling(**{field: -1})
