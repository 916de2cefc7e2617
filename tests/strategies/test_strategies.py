"""Each baseline against a plain loop that does the same the slow way."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from streamingllm import Stream, StreamConfig
from streamingllm.errors import InputError, UnsupportedFeatureError
from streamingllm.strategies import STRATEGIES
from tests.reference.tiny_llama import random_ids, tiny_llama

IDS = random_ids(45)


def feed_in_parts(config: StreamConfig, *splits: int) -> Tensor:
    stream = Stream(tiny_llama(), config)
    return torch.cat([stream.feed(part) for part in IDS.split(list(splits))])


def dense_logits(ids: Tensor) -> Tensor:
    with torch.no_grad():
        return tiny_llama()(ids[None]).logits[0]


@pytest.mark.parametrize("splits", [(45,), (1,) * 45, (7, 30, 1, 7)])
def test_recompute_runs_the_last_m_tokens_afresh(splits: tuple[int, ...]) -> None:
    m = 6
    expected = [dense_logits(IDS[max(0, t - m + 1) : t + 1])[-1] for t in range(len(IDS))]
    got = feed_in_parts(StreamConfig(0, m, strategy="recompute"), *splits)
    torch.testing.assert_close(got, torch.stack(expected), rtol=0, atol=1e-10)


@pytest.mark.parametrize("splits", [(45,), (20, 1, 24)])
def test_dense_is_the_model_itself(splits: tuple[int, ...]) -> None:
    got = feed_in_parts(StreamConfig(strategy="dense"), *splits)
    torch.testing.assert_close(got, dense_logits(IDS), rtol=0, atol=1e-10)


def test_window_is_sinks_without_sinks() -> None:
    got = feed_in_parts(StreamConfig(4, 6, strategy="window"), 45)
    torch.testing.assert_close(got, feed_in_parts(StreamConfig(0, 6), 45), rtol=0, atol=1e-10)


def test_interpolation_divides_every_angle_and_puts_them_back() -> None:
    model = tiny_llama()
    before = model.model.rotary_emb.inv_freq.clone()
    got = feed_in_parts(StreamConfig(strategy="interpolation", interpolation_factor=4.0), 30, 15)
    assert torch.equal(model.model.rotary_emb.inv_freq, before)
    model.model.rotary_emb.inv_freq /= 4.0
    try:
        expected = dense_logits(IDS)
    finally:
        model.model.rotary_emb.inv_freq.copy_(before)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("strategy", ["dense", "recompute", "interpolation"])
def test_baselines_refuse_padding_by_name(strategy: str) -> None:
    stream = Stream(tiny_llama(), StreamConfig(strategy=strategy))
    with pytest.raises(UnsupportedFeatureError, match=f"strategy '{strategy}'"):
        stream.feed(random_ids(2, 3), attention_mask=torch.tensor([[0, 1, 1], [1, 1, 1]]))


@pytest.mark.parametrize(
    ("strategy", "cached", "nbytes"),
    [
        ("sinks", 10, 2 * 2 * 2 * 8 * 10 * 8),
        ("window", 7, 2 * 2 * 2 * 8 * 7 * 8),
        ("dense", 45, 2 * 2 * 2 * 8 * 45 * 8),
        ("interpolation", 45, 2 * 2 * 2 * 8 * 45 * 8),
        ("recompute", 0, 0),
    ],
)
def test_what_each_strategy_holds(strategy: str, cached: int, nbytes: int) -> None:
    stream = Stream(tiny_llama(), StreamConfig(3, 7, strategy=strategy))
    stream.feed(IDS)
    assert (stream.num_seen_tokens, stream.num_cached_tokens) == (45, cached)
    assert stream.nbytes == nbytes


def test_learned_positions_end_in_one_line() -> None:
    config = GPT2Config(vocab_size=61, n_positions=20, n_embd=16, n_layer=1, n_head=2)
    stream = Stream(GPT2LMHeadModel(config).eval(), StreamConfig(strategy="dense"))
    stream.feed(IDS[:20])
    with pytest.raises(InputError, match="last learned position"):
        stream.feed(IDS[20:30])


OPTIONAL: dict[str, Callable[[Stream], object]] = {
    "num_seen_tokens_per_stream": lambda s: s.num_seen_tokens_per_stream,
    "rewind_nbytes": lambda s: s.rewind_nbytes,
    "first_visible_position": lambda s: s.first_visible_position,
    "begin_turn": lambda s: s.begin_turn(),
    "rewind": lambda s: s.rewind(1),
    "skip_to": lambda s: s.skip_to(100),
    "snapshot": lambda s: s.snapshot("stream.safetensors"),
}


@pytest.mark.parametrize("feature", OPTIONAL)
@pytest.mark.parametrize("name", ["dense", "recompute", "interpolation"])
def test_what_a_strategy_lacks_is_refused_by_name(name: str, feature: str) -> None:
    stream = Stream(tiny_llama(), StreamConfig(strategy=name))
    stream.feed(IDS)
    message = f"strategy='{name}' has no {feature}; use strategy='sinks' or 'window'"
    with pytest.raises(UnsupportedFeatureError, match=message):
        OPTIONAL[feature](stream)


@pytest.mark.parametrize("name", ["dense", "recompute", "interpolation"])
def test_a_strategy_without_compiled_steps_runs_uncompiled(name: str) -> None:
    strategy = STRATEGIES[name](tiny_llama(), StreamConfig(strategy=name))
    assert not strategy.compile(wait=True, cached_only=False)
    assert not strategy.is_compiled
    assert not strategy.is_captured


def test_strategies_are_called_by_their_names() -> None:
    assert {name: strategy.name for name, strategy in STRATEGIES.items()} == {
        name: name for name in STRATEGIES
    }


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_fork_goes_its_own_way(name: str) -> None:
    config = StreamConfig(2 if name != "window" else 0, 10, strategy=name, interpolation_factor=2.0)
    stream, alone = Stream(tiny_llama(), config), Stream(tiny_llama(), config)
    stream.feed(IDS[:30])
    fork = stream.fork()
    fork.feed(random_ids(9, seed=5))
    alone.feed(IDS[:30])
    expected = alone.feed(IDS[30:])
    torch.testing.assert_close(stream.feed(IDS[30:]), expected, rtol=0, atol=1e-10)
    assert fork.num_seen_tokens == 39
