"""Baselines that evict, against plain loops over keys that are rotated afresh."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from streamingllm import Stream, StreamConfig
from streamingllm.errors import UnsupportedFeatureError
from streamingllm.strategies import STRATEGIES
from streamingllm.strategies.evicting import EvictingStrategy
from streamingllm.strategies.position_eviction import CascadeStrategy, RandomStrategy
from tests.reference.tiny_llama import new_llama, random_ids, tiny_llama

NAMES = ["random", "key-norm", "key-diff", "cascade"]
# No token comes twice: the keys of equal tokens have equal norms in the first layer.
IDS = torch.randperm(61, generator=torch.Generator().manual_seed(0))[:60]


class OldestStrategy(EvictingStrategy):
    """Evict the oldest entry after the first n: that is what the sinks do."""

    name = "oldest"

    def kept_entries(self, keys: Tensor, num_kept: int) -> Tensor:
        n, entries = self.config.num_sink_tokens, keys.shape[2]
        kept = [*range(n), *range(n + entries - num_kept, entries)]
        return torch.tensor(kept).expand(*keys.shape[:2], num_kept)


@pytest.mark.parametrize("n", [0, 1, 4])
def test_evicting_the_oldest_is_the_sinks(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STRATEGIES, "random", OldestStrategy)
    found = Stream(tiny_llama(), StreamConfig(n, 10, strategy="random")).feed(IDS)
    expected = Stream(tiny_llama(), StreamConfig(n, 10)).feed(IDS)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def unrotated_keys(model: PreTrainedModel, keys: Tensor, at: Tensor, to: Tensor) -> Tensor:
    """Turn keys [heads, entries, dim] from positions `at` to `to`, pair by pair."""
    inv_freq = model.model.rotary_emb.inv_freq.double()
    angle = (to - at)[..., None] * inv_freq
    a, b = keys.chunk(2, dim=-1)
    turned = (a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin())
    return torch.cat(turned, dim=-1)


def scores_of(name: str, keys: Tensor) -> Tensor:
    """How gladly each key [entries, dim] of one head is evicted."""
    if name == "key-norm":
        return (keys**2).sum(-1).sqrt()
    unit = keys / (keys**2).sum(-1, keepdim=True).sqrt()
    mean = unit.mean(0)
    return (unit @ mean) / (mean**2).sum().sqrt()


def plain_logits(name: str, n: int, m: int) -> Tensor:
    """Feed token by token; evict one entry of each head when n + m are cached."""
    model = tiny_llama()
    cache = DynamicCache(config=model.config)
    rows = []
    for token in IDS:
        if cache.get_seq_length() == n + m:
            for layer in cache.layers:
                assert isinstance(layer, DynamicLayer)
                assert layer.keys is not None
                assert layer.values is not None
                for head in range(layer.keys.shape[1]):
                    keys = layer.keys[0, head]
                    scores = scores_of(name, keys)
                    allowed = range(n, n + m - max(1, m // 4))
                    gone = max(allowed, key=lambda i: float(scores[i]))
                    rest = torch.tensor([i for i in range(n + m) if i != gone])
                    turned = unrotated_keys(model, keys[rest], rest, torch.arange(n + m - 1))
                    layer.keys[0, head, :-1] = turned
                    layer.values[0, head, :-1] = layer.values[0, head, rest]
                layer.keys, layer.values = layer.keys[:, :, :-1], layer.values[:, :, :-1]
        with torch.no_grad():
            rows.append(model(token[None, None], past_key_values=cache).logits[0, 0])
    return torch.stack(rows)


@pytest.mark.parametrize("name", ["key-norm", "key-diff"])
def test_keys_choose_what_is_evicted(name: str) -> None:
    found = Stream(tiny_llama(), StreamConfig(2, 9, strategy=name)).feed(IDS)
    torch.testing.assert_close(found, plain_logits(name, 2, 9), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("splits", [(1,) * 300, (7, 130, 1, 162), (299, 1)])
def test_logits_do_not_depend_on_how_a_text_is_split(name: str, splits: tuple[int, ...]) -> None:
    ids = random_ids(300)
    config = StreamConfig(3, 130, strategy=name)  # two entries are evicted at once
    whole = Stream(tiny_llama(), config).feed(ids)
    stream = Stream(tiny_llama(), config)
    parts = [stream.feed(part) for part in ids.split(list(splits))]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=1e-6)
    assert stream.num_cached_tokens in (132, 133)
    assert stream.num_seen_tokens == 300
    assert stream.nbytes <= 2 * 2 * 2 * 8 * 133 * 8


@pytest.mark.parametrize("name", NAMES)
def test_without_eviction_they_are_dense(name: str) -> None:
    found = Stream(tiny_llama(), StreamConfig(4, 60, strategy=name)).feed(IDS)
    expected = Stream(tiny_llama(), StreamConfig(strategy="dense")).feed(IDS)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_streams_of_a_batch_are_apart(name: str) -> None:
    config = StreamConfig(2, 9, strategy=name)
    both = torch.stack([IDS, random_ids(60, seed=7)])
    found = Stream(tiny_llama(), config).feed(both)
    for row, ids in zip(found, both, strict=True):
        alone = Stream(tiny_llama(), config).feed(ids)
        torch.testing.assert_close(row, alone, rtol=0, atol=1e-6)


def fed(kind: type[RandomStrategy | CascadeStrategy], num_tokens: int) -> list[int]:
    strategy = kind(tiny_llama(), StreamConfig(2, 16, strategy=kind.name))
    for token in random_ids(num_tokens):
        strategy.step(token[None, None], None, "last")
    return strategy.positions


def test_a_cascade_thins_out_with_age() -> None:
    positions = fed(CascadeStrategy, 200)
    assert positions[:2] == [0, 1]
    assert len(positions) == 18
    ages = [199 - position for position in positions[2:]]
    assert ages[-4:] == [3, 2, 1, 0]
    steps = [older - newer for older, newer in pairwise(ages)]
    assert steps == sorted(steps, reverse=True)
    assert set(steps) <= {1, 2, 4, 8}
    assert max(ages) > 2 * 16


def test_random_keeps_the_first_and_is_fixed_by_its_seed() -> None:
    positions = fed(RandomStrategy, 200)
    assert positions[:2] == [0, 1]
    assert positions == sorted(set(positions)) == fed(RandomStrategy, 200)
    assert len(positions) == 18
    ages = [199 - position for position in positions[2:]]
    assert 16 < max(ages) < 198


@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_covered_is_refused(name: str) -> None:
    config = StreamConfig(1, 8, strategy=name, sink_positions=(3,))
    with pytest.raises(UnsupportedFeatureError, match="no sink_positions"):
        Stream(tiny_llama(), config)
    with pytest.raises(UnsupportedFeatureError, match=f"strategy '{name}'"):
        stream = Stream(new_llama(), StreamConfig(1, 8, strategy=name))
        stream.feed(random_ids(2, 3), attention_mask=torch.tensor([[0, 1, 1], [1, 1, 1]]))
