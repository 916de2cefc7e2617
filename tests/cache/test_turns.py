"""Eviction by whole turns against the oracles: alone, in batches, stepped, split, rewound."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from streamingllm import SinkCache, Stream, StreamConfig
from streamingllm.cache.turns import TurnStarts
from tests.reference.families import FAMILIES, model_of
from tests.reference.family import VOCAB_SIZE
from tests.reference.layer_facts import Turns, kept_tokens
from tests.reference.oracles import banded_logits, token_by_token_logits

NUM_TOKENS = 48
STARTS = (0, 3, 9, 11, 16, 23, 24, 40)  # the turn of 24 is longer than half of any window here
IDS = torch.randint(3, VOCAB_SIZE, (1, NUM_TOKENS), generator=torch.Generator().manual_seed(0))
FAMILY_NAMES = ("llama", "gemma2-6", "bloom", "gptj", "deepseek-v3", "mistral-9", "gpt-oss")


def truth(name: str, n: int, m: int, dtype: torch.dtype = torch.float64) -> Tensor:
    facts = FAMILIES[name].facts(n + m)
    return banded_logits(model_of(name, dtype), facts, IDS, n, m, turns=Turns(STARTS, m))


def feed(stream: Stream, ids: Tensor, sizes: list[int]) -> Tensor:
    """Feed ids in parts that are cut again where turns begin; return all logits."""
    cuts = {*STARTS, *torch.tensor(sizes).cumsum(0).tolist(), ids.shape[-1]}
    parts, first = [], 0
    for last in sorted(cut for cut in cuts if 0 < cut <= ids.shape[-1]):
        if first in STARTS:
            stream.begin_turn()
        parts.append(stream.feed(ids[..., first:last]))
        first = last
    return torch.cat(parts, dim=-2)


def random_sizes(seed: int) -> list[int]:
    choose = random.Random(seed)
    return [choose.choice((1, 1, 1, 2, 5, 12)) for _ in range(NUM_TOKENS)]


def config_of(n: int, m: int, **fields: int) -> StreamConfig:
    return StreamConfig(n, m, eviction="turn", **fields)


@pytest.mark.parametrize("name", FAMILY_NAMES)
def test_every_kind_of_family_equals_the_oracles(name: str) -> None:
    n, m = FAMILIES[name].shapes[0]
    expected = truth(name, n, m)
    facts = FAMILIES[name].facts(n + m)
    looped = token_by_token_logits(model_of(name), facts, IDS, n, m, turns=Turns(STARTS, m))
    torch.testing.assert_close(looped, expected, rtol=0, atol=1e-4)
    by_token = banded_logits(model_of(name), facts, IDS, n, m)
    assert float((by_token - expected).abs().max()) > 1e-3  # the rule makes a difference
    for sizes in ([NUM_TOKENS], [1] * NUM_TOKENS, random_sizes(len(name))):
        stream = Stream(model_of(name), config_of(n, m))
        torch.testing.assert_close(feed(stream, IDS, sizes), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("n", "m"), [(0, 8), (3, 1), (3, 2), (20, 7), (1, 47), (4, 13)])
def test_any_shape(n: int, m: int) -> None:
    stream = Stream(model_of("llama"), config_of(n, m))
    found = feed(stream, IDS, random_sizes(m))
    torch.testing.assert_close(found, truth("llama", n, m), rtol=0, atol=1e-4)
    kept = kept_tokens(NUM_TOKENS - 1, range(n), m, Turns(STARTS, m))
    assert stream.num_cached_tokens == len(kept)
    assert stream.first_visible_position == Turns(STARTS, m).oldest(NUM_TOKENS - 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_steps_equal_chunks(dtype: torch.dtype) -> None:
    n, m = 3, 11
    expected = truth("llama", n, m, dtype)
    for batch in (1, 3):
        stream = Stream(model_of("llama", dtype), config_of(n, m))
        found = feed(stream, IDS.expand(batch, -1), [20] + [1] * 28)
        torch.testing.assert_close(found, expected.expand_as(found), rtol=1e-4, atol=1e-3)


def test_streams_at_different_positions_have_turns_of_their_own() -> None:
    n, m, late = 3, 11, 5
    stream = Stream(model_of("llama"), config_of(n, m))
    ids = IDS.expand(2, -1)
    mask = torch.ones(2, late, dtype=torch.int64)
    mask[1] = 0  # the second stream begins `late` columns after the first
    stream.begin_turn()
    found = [stream.feed(ids[:, :late], attention_mask=mask)]
    shifted = torch.stack((IDS[0, late:], IDS[0, : NUM_TOKENS - late]))
    starts: list[list[int]] = [[0], [0]]
    for column, pair in enumerate(shifted.T):
        if column % 6 == 0:
            stream.begin_turn()
            starts[0].append(late + column)
            starts[1].append(column)
        found.append(stream.feed(pair[:, None]))
    facts, model = FAMILIES["llama"].facts(n + m), model_of("llama")
    for row, first in enumerate((0, late)):
        expected = banded_logits(model, facts, IDS, n, m, turns=Turns(starts[row], m))[0]
        got = torch.cat(found, dim=1)[row, first:]
        torch.testing.assert_close(got, expected[: len(got)], rtol=0, atol=1e-4)


@settings(max_examples=40, deadline=None)
@given(
    actions=st.lists(
        st.tuples(st.sampled_from(["feed", "turn", "rewind", "fork"]), st.integers(1, 5)),
        max_size=16,
    )
)
def test_any_history_equals_a_fresh_stream_of_what_is_left(
    actions: list[tuple[str, int]],
) -> None:
    n, m = 2, 9
    stream = Stream(model_of("llama"), config_of(n, m, max_rewind_tokens=6))
    left: list[int] = []
    turns: set[int] = set()
    fresh = iter(range(3, 1000))
    for action, count in [("feed", 5), *actions]:
        if action == "feed":
            new = [next(fresh) * 7 % VOCAB_SIZE for _ in range(count)]
            stream.feed(torch.tensor(new))
            left += new
        elif action == "turn":
            stream.begin_turn()
            turns.add(len(left))
        elif action == "fork":
            stream = stream.fork()
        elif count < min(len(left), 6):
            stream.rewind(count)
            del left[-count:]
            turns = {start for start in turns if start <= len(left)}
    more = IDS[0, :9]
    ids = torch.cat((torch.tensor(left, dtype=torch.int64), more))[None]
    expected = banded_logits(
        model_of("llama"), FAMILIES["llama"].facts(n + m), ids, n, m, turns=Turns(sorted(turns), m)
    )
    torch.testing.assert_close(stream.feed(more), expected[0, -9:], rtol=0, atol=1e-4)


@given(
    starts=st.sets(st.integers(0, 200), max_size=30), m=st.integers(1, 40), t=st.integers(0, 240)
)
def test_the_rule(starts: set[int], m: int, t: int) -> None:
    turns = TurnStarts(m, sorted(starts))
    assert turns.first_visible(t) == Turns(sorted(starts), m).oldest(t)
    positions = torch.arange(t + 1)
    assert turns.first_visible_of(positions).tolist() == [turns.first_visible(p) for p in positions]
    assert t - m < turns.first_visible(t) <= max(0, t - m // 2)
    assert turns.first_visible(t) <= turns.first_visible(t + 1)  # nothing comes back


def test_without_turns_nothing_changes() -> None:
    stream = Stream(model_of("llama"), config_of(3, 9))
    expected = Stream(model_of("llama"), StreamConfig(3, 9)).feed(IDS[0])
    torch.testing.assert_close(stream.feed(IDS[0]), expected, rtol=0, atol=1e-9)


def test_turns_are_without_effect_where_tokens_are_evicted_one_by_one() -> None:
    stream = Stream(model_of("llama"), StreamConfig(3, 9))
    expected = Stream(model_of("llama"), StreamConfig(3, 9)).feed(IDS[0])
    torch.testing.assert_close(feed(stream, IDS[0], [NUM_TOKENS]), expected, rtol=0, atol=1e-9)


def test_what_is_remembered_of_turns_does_not_grow() -> None:
    cache = SinkCache(model_of("llama"), 2, 8, eviction="turn", max_rewind_tokens=4)
    with cache, torch.no_grad():
        for token in IDS.repeat(1, 4).split(1, dim=1):
            cache.begin_turn()
            model_of("llama")(token, past_key_values=cache)
        assert cache.positions.turns is not None
        assert len(cache.positions.turns[0].to_list()) <= 8 + 5 + 1
