"""Every family against two oracles, near the start of a stream and four million tokens later."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from streamingllm import SinkCache
from tests.reference.families import FAMILIES, model_of
from tests.reference.family_passes import (
    IDS,
    NUM_TOKENS,
    difference,
    random_sizes,
    stream,
    tokens,
)
from tests.reference.layer_facts import reaches
from tests.reference.oracles import banded_logits, token_by_token_logits

SHAPES = [(name, n, m) for name, family in FAMILIES.items() for n, m in family.shapes]
IMPLEMENTATIONS = [(name, i) for name, family in FAMILIES.items() for i in family.implementations]
PADDED = ("llama", "gemma2-6", "bloom", "falcon-new", "gptj", "deepseek-v3")


@cache
def banded(name: str, n: int, m: int) -> Tensor:
    return banded_logits(model_of(name), FAMILIES[name].facts(n + m), IDS, n, m)


@pytest.mark.parametrize(("name", "n", "m"), SHAPES)
def test_the_oracles_agree_and_eviction_matters(name: str, n: int, m: int) -> None:
    model = model_of(name)
    looped = token_by_token_logits(model, FAMILIES[name].facts(n + m), IDS, n, m)
    assert difference(looped, banded(name, n, m)) <= 1e-4
    assert difference(dense_logits(model, IDS), looped) > 0.1


@pytest.mark.parametrize(("name", "n", "m"), SHAPES)
def test_float64_equals_the_oracles(name: str, n: int, m: int) -> None:
    model = model_of(name)
    full_ring = n + m + 20
    splits = {
        "at once": [NUM_TOKENS],
        "one by one": [1] * NUM_TOKENS,
        "chunk, then one by one": [full_ring] + [1] * (NUM_TOKENS - full_ring),
        "random": list(random_sizes(NUM_TOKENS, seed=len(name))),
    }
    for split, sizes in splits.items():
        with SinkCache(model, n, m) as cache:
            logits = stream(cache, model, IDS, sizes)
        assert difference(logits, banded(name, n, m)) <= 1e-4, split


@pytest.mark.parametrize(("name", "n", "m"), SHAPES)
def test_float32_equals_the_oracles(name: str, n: int, m: int) -> None:
    model = model_of(name, torch.float32)
    with SinkCache(model, n, m) as cache:
        logits = stream(cache, model, IDS, list(random_sizes(NUM_TOKENS, seed=n)))
    assert difference(logits, banded(name, n, m)) <= 1e-3


@pytest.mark.parametrize(("n", "m"), [(0, 8), (3, 1), (20, 7), (20, 15), (1, 47)])
def test_any_shape(n: int, m: int) -> None:
    model = model_of("llama")
    for sizes in ([NUM_TOKENS], list(random_sizes(NUM_TOKENS, seed=m))):
        with SinkCache(model, n, m) as cache:
            logits = stream(cache, model, IDS, sizes)
        assert difference(logits, banded("llama", n, m)) <= 1e-4


@pytest.mark.parametrize("name", ["llama", "gemma2-6", "bloom", "deepseek-v3"])
@pytest.mark.parametrize("sinks", [(0, 5, 30), (2, 3, 31, 36)])
def test_sinks_at_chosen_positions(name: str, sinks: tuple[int, ...]) -> None:
    model, n, m = model_of(name), len(sinks), 9
    facts = FAMILIES[name].facts(n + m)
    expected = banded_logits(model, facts, IDS, n, m, sinks)
    assert difference(token_by_token_logits(model, facts, IDS, n, m, sinks), expected) <= 1e-4
    for sizes in ([NUM_TOKENS], list(random_sizes(NUM_TOKENS, seed=n)), [1] * NUM_TOKENS):
        with SinkCache(model, n, m, sink_positions=sinks) as cache:
            assert difference(stream(cache, model, IDS, sizes), expected) <= 1e-4


@pytest.mark.parametrize("name", FAMILIES)
def test_the_same_tokens_four_million_tokens_later(name: str) -> None:
    """The clock jumps, so the ring is full of keys from elsewhere, until new tokens replace them.

    A layer forgets what it saw before the jump m tokens after the layer below has: what comes
    later than that depends on the sinks and on the new tokens alone.
    """
    family, model = FAMILIES[name], model_of(name, torch.float32)
    n, m = family.shapes[0]
    shares = reaches(family.facts(n + m), n, m)
    forgotten = sum(window for _, window in shares)
    start, new = tokens(1, n + m + 3), tokens(1, forgotten + 2 * m, seed=1)
    sizes = [forgotten - 5, 5 + m] + [1] * m
    logits = []
    for jump in (0, 4_000_000):
        with SinkCache(model, n, m, max_rewind_tokens=0) as cache:
            stream(cache, model, start, [start.shape[1]])
            period = math.lcm(*(window for _, window in shares))
            cache.positions.seen = [t + jump // period * period for t in cache.positions.seen]
            logits.append(stream(cache, model, new, sizes)[:, forgotten:])
    assert difference(*logits) <= 1e-3


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bytes_are_those_of_the_formula(name: str, dtype: torch.dtype) -> None:
    family, model = FAMILIES[name], model_of(name, dtype)
    n, m = family.shapes[0]
    layers = family.facts(n + m)
    entries = [sinks + window for sinks, window in reaches(layers, n, m)]
    elements = sum(e * layer.cached_elements for e, layer in zip(entries, layers, strict=True))
    with SinkCache(model, n, m) as cache:
        for sizes in ([1], [40], [1, 1]):
            stream(cache, model, IDS[:, : sum(sizes)], sizes)
            assert cache.nbytes == elements * dtype.itemsize
            assert cache.num_cached_tokens <= n + m


@pytest.mark.parametrize(("name", "implementation"), IMPLEMENTATIONS)
def test_while_nothing_is_evicted_a_stream_is_dense(name: str, implementation: str) -> None:
    model = model_of(name, torch.float64, implementation)
    layers = FAMILIES[name].facts(0)
    windows = [layer.own_window for layer in layers if layer.own_window is not None]
    length = min(windows) if len(windows) == len(layers) else _DENSE_LENGTHS.get(name, 30)
    ids = IDS[:, :length]
    # All n + m entries are in use, which is the length that pins the frequencies too.
    n = min(4, length - 1)
    expected = dense_logits(model, ids)
    for sizes in ([length], [length - 3, 1, 1, 1], [1] * length):
        with SinkCache(model, n, length - n) as cache:
            assert difference(stream(cache, model, ids, sizes), expected) <= 1e-4
    assert torch.equal(dense_logits(model, ids), expected)


_DENSE_LENGTHS = {"phi3-short": 16}


def dense_logits(model: PreTrainedModel, ids: Tensor) -> Tensor:
    with torch.no_grad():
        model(ids[:, :1])  # dynamic NTK remembers the longest text until it sees a short one
        return model(ids).logits


@pytest.mark.parametrize("name", FAMILIES)
def test_the_model_is_as_it_was(name: str) -> None:
    model = model_of(name)
    SinkCache(model).disable()  # looks at the model once, with a short text like any other
    expected = dense_logits(model, IDS)
    model.generation_config.cache_implementation = "static"
    try:
        before = everything(model)
        first, second = SinkCache(model, 2, 5), SinkCache(model, 4, 12)
        stream(first, model, IDS, [34, 14])
        first.disable()
        stream(second, model, IDS, [30, 1, 17])
        assert everything(model) != before
        second.disable()
        assert everything(model) == before
    finally:
        model.generation_config.cache_implementation = None
    assert torch.equal(dense_logits(model, IDS), expected)


def everything(model: PreTrainedModel) -> dict[str, Any]:
    """All that using a model might change in it, in a form that can be compared."""
    state: dict[str, Any] = {"generation": model.generation_config.to_dict()}
    for name, module in model.named_modules():
        for key, value in vars(module).items():
            if key == "config":
                value = {k: repr(v) for k, v in vars(value).items()}
            elif isinstance(value, dict):
                value = {k: in_short(v) for k, v in value.items()}
            state[f"{name}.{key}"] = in_short(value)
    return state


def in_short(value: Any) -> Any:
    """Tensors by what they hold, modules and hooks by who they are."""
    if isinstance(value, Tensor):
        return hash(tuple(value.flatten().tolist()))
    return id(value) if isinstance(value, torch.nn.Module) or callable(value) else value


@pytest.mark.parametrize("name", PADDED)
def test_rows_with_padding_equal_each_row_alone(name: str) -> None:
    model, (n, m) = model_of(name), FAMILIES[name].shapes[0]
    ids, batch = tokens(3, NUM_TOKENS, seed=2), 3
    mask = torch.ones(batch, NUM_TOKENS, dtype=torch.int64)
    mask[0, :17], mask[1, :3] = 0, 0  # left padding of the prompt
    mask[1, 14:34], mask[2, 33:41:2], mask[0, 40:43], mask[2, 44:] = 0, 0, 0, 0
    done, logits = 0, []
    with SinkCache(model, n, m) as together:
        for size in (25, 1, 6, *[1] * 6, 5, *[1] * 5):
            done += size
            chunk = ids[:, done - size : done]
            logits.append(stream(together, model, chunk, [size], attention_mask=mask[:, :done]))
    for row in range(batch):
        kept = mask[row].bool()
        with SinkCache(model, n, m) as alone:
            expected = stream(alone, model, ids[row : row + 1, kept], [int(kept.sum())])
        assert difference(torch.cat(logits, dim=1)[row, kept], expected[0]) <= 1e-6
