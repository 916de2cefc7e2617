"""xPos, whose keys shrink as they recede: the cache counts from new origins and moves its keys."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from streamingllm import SinkCache
from streamingllm.integration.adapters import ADAPTERS
from streamingllm.positions.xpos import XPosEncoding
from tests.reference.oracles import banded_logits, token_by_token_logits
from tests.reference.tiny_llama import random_ids
from tests.reference.xpos_model import TinyXPosAdapter, TinyXPosForCausalLM, xpos_facts, xpos_model

SHAPES = [(4, 12), (1, 5), (0, 8)]
IDS = random_ids(1, 80)


@pytest.fixture(autouse=True)
def _adapter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ADAPTERS, "tiny-xpos", TinyXPosAdapter())


@pytest.fixture(params=[30, 4096])
def limit(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """The position past which the cache starts from a new origin: never reached, or soon."""
    monkeypatch.setattr(XPosEncoding, "position_limit", request.param)
    return int(request.param)


def stream(
    cache: SinkCache, ids: Tensor, sizes: Sequence[int], mask: Tensor | None = None
) -> Tensor:
    model, logits, done = cache.attachment.model, [], 0
    with torch.no_grad():
        for size in sizes:
            done += size
            chunk = ids[:, done - size : done]
            seen = None if mask is None else mask[:, :done]
            logits.append(model(chunk, past_key_values=cache, attention_mask=seen).logits)
    return torch.cat(logits, dim=1)


@pytest.mark.parametrize(("n", "m"), SHAPES)
@pytest.mark.parametrize("sizes", [[7] * 11 + [3], [1] * 80, [13, 1, 1, 9, 1, 17, 1, 11, 20, 6]])
def test_both_oracles(limit: int, n: int, m: int, sizes: list[int]) -> None:
    model, facts = xpos_model(), xpos_facts()
    banded = banded_logits(model, facts, IDS, n, m)
    looped = token_by_token_logits(model, facts, IDS, n, m)
    with SinkCache(model, n, m) as cache:
        logits = stream(cache, IDS, sizes)
        rebased = int(cache.positions.origin) > 0
    torch.testing.assert_close(logits, banded, rtol=0, atol=1e-6)
    torch.testing.assert_close(logits, looped, rtol=0, atol=1e-6)
    assert rebased == (limit < 80)


def test_while_nothing_is_evicted_it_is_dense() -> None:
    model = xpos_model()
    with torch.no_grad(), SinkCache(model, 4, 76) as cache:
        expected = model(IDS).logits
        logits = stream(cache, IDS, [50, 1, 29])
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-6)


def test_the_model_is_given_small_positions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(XPosEncoding, "position_limit", 30)
    model, given = xpos_model(), []
    hook = model.model.layers[0].register_forward_pre_hook(
        lambda module, args: given.append(int(args[1].max()))
    )
    with hook, SinkCache(model, 4, 12) as cache:
        stream(cache, IDS, [5] * 16)
    assert max(given) < 30


def test_going_back_across_a_new_origin(limit: int) -> None:
    model, n, m = xpos_model(), 4, 12
    ids, other = random_ids(1, 34), random_ids(1, 20, seed=1)
    with SinkCache(model, n, m, max_rewind_tokens=8) as cache:
        stream(cache, ids, [20, 9, 1, 1, 1, 1, 1])
        cache.rewind(7)
        logits = stream(cache, other, [1, 19])
    expected = banded_logits(model, xpos_facts(), torch.cat((ids[:, :27], other), dim=1), n, m)
    torch.testing.assert_close(logits, expected[:, 27:], rtol=0, atol=1e-6)


def test_rows_with_padding_equal_each_row_alone(limit: int) -> None:
    model, n, m = xpos_model(), 4, 12
    ids, mask = random_ids(2, 80), torch.ones(2, 80, dtype=torch.int64)
    mask[0, :19], mask[1, 40:52] = 0, 0
    with SinkCache(model, n, m) as cache:
        together = stream(cache, ids, [25, 1, 1, 8, 20, 1, 1, 1, 9, 13], mask)
    for row in range(2):
        kept = mask[row].bool()
        alone = banded_logits(model, xpos_facts(), ids[row : row + 1, kept], n, m)
        torch.testing.assert_close(together[row, kept], alone[0], rtol=0, atol=1e-6)


def test_float32_through_the_limit_itself() -> None:
    """The paper's scale base, 9,000 tokens; what was seen long ago matters no more."""
    n, m, scale_base = 4, 60, 512.0
    model: TinyXPosForCausalLM = xpos_model(torch.float32, scale_base)
    ids = random_ids(1, 9_000)
    with SinkCache(model, n, m) as cache:
        logits = stream(cache, ids, [250] * 35 + [10] * 25)
        assert int(cache.positions.origin) > 4096
    recent = torch.cat((ids[:, :n], ids[:, -5 * m :]), dim=1)
    expected = banded_logits(
        xpos_model(torch.float64, scale_base), xpos_facts(scale_base), recent, n, m
    )
    late = slice(-2 * m, None)
    torch.testing.assert_close(logits[:, late].double(), expected[:, late], rtol=0, atol=1e-3)
