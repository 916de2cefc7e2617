"""Every hybrid family against two oracles: recurrent states as they are, attention in a stream."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from streamingllm import SinkCache
from tests.reference.family_passes import (
    IDS,
    NUM_TOKENS,
    difference,
    random_sizes,
    stream,
    tokens,
)
from tests.reference.hybrid_oracles import banded_logits, looped_logits
from tests.reference.hybrids import HYBRIDS, hybrid_model

SHAPES = ((2, 6), (4, 12), (0, 7))
NAMES = [*HYBRIDS]
# Recurrences compute in float32 inside, whatever the model's dtype.
TOLERANCE = 3e-4


@cache
def banded(name: str, n: int, m: int) -> Tensor:
    return banded_logits(hybrid_model(name), HYBRIDS[name].attention, IDS, n, m)


@pytest.mark.parametrize("name", NAMES)
def test_the_oracles_agree_and_eviction_matters(name: str) -> None:
    model, facts = hybrid_model(name), HYBRIDS[name].attention
    with torch.no_grad():
        dense = model(IDS, use_cache=False).logits
    assert difference(banded_logits(model, facts, IDS, 4, NUM_TOKENS), dense) <= TOLERANCE
    for n, m in SHAPES:
        assert difference(looped_logits(model, facts, IDS, n, m), banded(name, n, m)) <= TOLERANCE
        assert difference(dense, banded(name, n, m)) > 0.1


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("n", "m"), SHAPES)
def test_any_split_equals_the_oracle(name: str, n: int, m: int) -> None:
    model = hybrid_model(name)
    splits = {
        "at once": [NUM_TOKENS],
        "one by one": [1] * NUM_TOKENS,
        "random": list(random_sizes(NUM_TOKENS, seed=len(name) + n)),
    }
    for split, sizes in splits.items():
        # Checkpoints cut passes into parts; with none a pass is whole.
        with SinkCache(model, n, m, max_rewind_tokens=3 if m == 6 else 0) as streaming:
            logits = stream(streaming, model, IDS, sizes)
        assert difference(logits, banded(name, n, m)) <= TOLERANCE, split


@pytest.mark.parametrize("name", NAMES)
def test_padding_anywhere_changes_no_stream(name: str) -> None:
    """Three streams of other lengths, padded left, right and between, and then fed on."""
    model, rows = hybrid_model(name), tokens(3, 20, seed=1)
    mask = torch.ones(3, 20, dtype=torch.int64)
    mask[0, :5], mask[1, 13:], mask[2, 3:6] = 0, 0, 0
    second = tokens(3, 9, seed=2)
    after = torch.ones(3, 9, dtype=torch.int64)
    after[0, 4:], after[2, :] = 0, 0
    third = tokens(3, 1, seed=3)
    with SinkCache(model, 2, 6, max_rewind_tokens=3) as batch, torch.no_grad():
        options: dict[str, Any] = {"past_key_values": batch}
        got = [
            model(rows, attention_mask=mask, **options).logits,
            model(second, attention_mask=after, **options).logits,
            model(third, **options).logits,
        ]
        assert batch.num_seen_tokens_per_stream.tolist() == [15 + 4 + 1, 13 + 9 + 1, 17 + 1]
    both, valid = torch.cat((rows, second, third), 1), torch.cat((mask, after), 1).bool()
    valid = torch.cat((valid, torch.ones(3, 1, dtype=torch.bool)), 1)
    for row in range(3):
        alone = banded_logits(model, HYBRIDS[name].attention, both[row, valid[row]][None], 2, 6)
        assert difference(torch.cat(got, 1)[row, valid[row]], alone[0]) <= TOLERANCE


@pytest.mark.parametrize("name", ["lfm2", "lfm3"])
def test_a_stream_four_million_tokens_later_is_the_same(name: str) -> None:
    """Convolutions forget within a few tokens, so what the jump itself disturbs leaves them."""
    model, ids = hybrid_model(name), tokens(1, 60, seed=5)
    tails = []
    for position in (NUM_TOKENS, 4_000_000):
        with SinkCache(model, 0, 6) as streaming:
            stream(streaming, model, IDS, [NUM_TOKENS])
            streaming.positions.skip_to(position)
            tails.append(stream(streaming, model, ids, [60])[:, 40:])
    assert difference(*tails) <= 1e-6
