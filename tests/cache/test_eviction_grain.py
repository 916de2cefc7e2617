"""Eviction by blocks of tokens against the oracles."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from streamingllm import Engine, Stream, StreamConfig
from streamingllm.cache.turns import BlockStarts
from streamingllm.engine import StreamState
from streamingllm.errors import ConfigError, InputError
from tests.engine.driver import free, run, start, tokens_of
from tests.reference.families import FAMILIES, model_of
from tests.reference.family import VOCAB_SIZE
from tests.reference.layer_facts import Blocks
from tests.reference.oracles import banded_logits, token_by_token_logits
from tests.reference.tiny_lm import tiny_lm

NUM_TOKENS = 48
IDS = torch.randint(3, VOCAB_SIZE, (1, NUM_TOKENS), generator=torch.Generator().manual_seed(0))


def parts(seed: int) -> list[Tensor]:
    choose = random.Random(seed)
    sizes: list[int] = []
    while sum(sizes) < NUM_TOKENS:
        sizes.append(min(choose.choice((1, 1, 2, 5, 12)), NUM_TOKENS - sum(sizes)))
    return list(IDS.split(sizes, dim=1))


@pytest.mark.parametrize("name", ["llama", "gemma2-6", "bloom", "gptj", "deepseek-v3", "gpt-oss"])
def test_every_kind_of_family_equals_the_oracles(name: str) -> None:
    n, m = FAMILIES[name].shapes[0]
    grain = max(2, m // 2)
    facts, model, blocks = FAMILIES[name].facts(n + m), model_of(name), Blocks(grain, m)
    expected = banded_logits(model, facts, IDS, n, m, turns=blocks)
    looped = token_by_token_logits(model, facts, IDS, n, m, turns=blocks)
    torch.testing.assert_close(looped, expected, rtol=0, atol=1e-4)
    assert float((banded_logits(model, facts, IDS, n, m) - expected).abs().max()) > 1e-3
    for cut in ([IDS], IDS.split(1, dim=1), parts(len(name))):
        stream = Stream(model, StreamConfig(n, m, eviction_grain=grain))
        found = torch.cat([stream.feed(ids) for ids in cut], dim=1)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
        assert stream.first_visible_position == blocks.oldest(NUM_TOKENS - 1)


@pytest.mark.parametrize(("n", "m", "grain"), [(0, 8, 8), (3, 9, 2), (4, 19, 16), (20, 7, 3)])
def test_any_shape_rewound_forked_and_restored(n: int, m: int, grain: int, tmp_path: Path) -> None:
    config = StreamConfig(n, m, eviction_grain=grain, max_rewind_tokens=8)
    facts = FAMILIES["llama"].facts(n + m)
    expected = banded_logits(model_of("llama"), facts, IDS, n, m, turns=Blocks(grain, m))
    stream = Stream(model_of("llama"), config)
    stream.feed(IDS[:, :40])
    stream.feed(IDS[:, :3])
    stream.rewind(3)
    fork = stream.fork()
    stream.snapshot(tmp_path / "stream.safetensors")
    other = Stream.restore(model_of("llama"), tmp_path / "stream.safetensors")
    for each in (stream, fork, other):
        torch.testing.assert_close(each.feed(IDS[:, 40:]), expected[:, 40:], rtol=0, atol=1e-4)


def test_an_engine_writes_what_a_stream_alone_does() -> None:
    config = StreamConfig(3, 20, eviction_grain=8, chunk_size=16)
    with Engine(tiny_lm(), config, max_streams=2) as engine:
        prompts = {start(engine, list(range(k, k + 60)), free(30)): k for k in (1, 90)}
        outputs = list(run(engine))
    for stream_id, first in prompts.items():
        stream = Stream(tiny_lm(), config)
        stream.feed(torch.arange(first, first + 60))
        assert tokens_of(outputs, stream_id) == list(stream.generate(30))


def test_a_stream_of_other_blocks_is_not_imported() -> None:
    with Engine(tiny_lm(), StreamConfig(3, 20, eviction_grain=8), max_streams=1) as engine:
        data = engine.export_state(start(engine, [1, 2, 3])).to_bytes()
    with (
        Engine(tiny_lm(), StreamConfig(3, 20), max_streams=1) as engine,
        pytest.raises(InputError, match="blocks of 8"),
    ):
        engine.open_stream(state=StreamState.from_bytes(data))


@given(m=st.integers(1, 40), t=st.integers(0, 240), data=st.data())
def test_the_rule(m: int, t: int, data: st.DataObject) -> None:
    grain = data.draw(st.integers(1, m))
    starts = BlockStarts(m, grain)
    assert starts.first_visible(t) == Blocks(grain, m).oldest(t)
    positions = torch.arange(t + 1)
    assert starts.first_visible_of(positions).tolist() == [
        starts.first_visible(p) for p in range(t + 1)
    ]
    assert max(0, t - m + 1) <= starts.first_visible(t) <= max(0, t - m + grain)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"eviction_grain": 0}, "eviction_grain=0"),
        ({"eviction_grain": 21}, "eviction_grain=21 is more than window_size=20"),
        ({"eviction_grain": 2, "eviction": "turn"}, "needs eviction='token'; it is 'turn'"),
        ({"eviction_grain": 2, "strategy": "dense"}, "needs strategy='sinks'; it is 'dense'"),
    ],
)
def test_what_does_not_fit_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        StreamConfig(3, 20, **fields)
