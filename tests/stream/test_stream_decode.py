"""Streams of a model that steps can be made for: one token at a time, and clocks set forward."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from streamingllm import SamplingParams, Stream, StreamConfig
from streamingllm.errors import InputError, UnsupportedFeatureError
from tests.reference.tiny_lm import tiny_lm

CONFIG = StreamConfig(num_sink_tokens=3, window_size=9, max_rewind_tokens=6, chunk_size=16)
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


def tokens(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 257, shape, generator=torch.Generator().manual_seed(seed))


def stream_of(ids: Tensor, config: StreamConfig = CONFIG) -> Stream:
    stream = Stream(tiny_lm().model, config)
    stream.feed(ids)
    return stream


@pytest.mark.parametrize("shape", [(), (3,)])
@pytest.mark.parametrize("num_tokens", [1, 3, 8, 40])
@pytest.mark.parametrize("num_sinks", [0, 3])
def test_steps_equal_chunks(shape: tuple[int, ...], num_tokens: int, num_sinks: int) -> None:
    config = StreamConfig(num_sinks, 9, max_rewind_tokens=6)
    ids, more = tokens(*shape, num_tokens), tokens(*shape, 25, seed=1)
    stepping = stream_of(ids, config)
    steps = torch.cat([stepping.feed(token) for token in more.split(1, dim=-1)], dim=-2)
    torch.testing.assert_close(steps, stream_of(ids, config).feed(more), **CLOSE)


def test_steps_and_chunks_take_turns() -> None:
    ids = tokens(90)
    sizes = [1, 4, 1, 1, 9, 1, 16, 1, 1, 1, 20, 1, 1, 32]
    stream = Stream(tiny_lm().model, CONFIG)
    in_turns = torch.cat([stream.feed(part) for part in ids.split(sizes)])
    torch.testing.assert_close(in_turns, Stream(tiny_lm().model, CONFIG).feed(ids), **CLOSE)


def test_what_was_generated_would_be_generated_from_chunks() -> None:
    ids = tokens(30)
    written = torch.tensor(list(stream_of(ids).generate(30)))
    logits = stream_of(ids).feed(written[:-1])
    assert torch.equal(logits.argmax(-1), written[1:])


def test_the_same_generator_draws_the_same_tokens() -> None:
    runs = [
        list(
            stream_of(tokens(20)).generate(
                30,
                sampling=SamplingParams(temperature=1.0),
                generator=torch.Generator().manual_seed(7),
            )
        )
        for _ in range(2)
    ]
    assert runs[0] == runs[1]


def test_a_stream_of_a_batch_that_has_ended_stays_as_it_is() -> None:
    ids = tokens(2, 20)
    stops = [int(stream_of(ids).next_logits[0].argmax())]
    stream = stream_of(ids)
    first, second = zip(*stream.generate_batch(12, stop_token_ids=stops), strict=True)
    seen = stream.num_seen_tokens_per_stream.tolist()
    assert sum(token is not None for token in first) == 1
    assert seen[0] == 21
    assert seen[1] == 20 + sum(token is not None for token in second)


@pytest.mark.parametrize("position", [40, 41, 1000, 10_000_000])
def test_a_later_clock_changes_nothing_but_the_clock(position: int) -> None:
    ids, more = tokens(40), tokens(30, seed=1)
    stream = stream_of(ids)
    before = stream.next_logits.clone()
    stream.skip_to(position)
    assert stream.num_seen_tokens == position
    assert torch.equal(stream.next_logits, before)
    size = stream.nbytes
    logits = torch.stack([stream.feed(token, logits="last") for token in more.split(1)])
    assert stream.num_seen_tokens == position + 30
    assert stream.nbytes == size
    assert bool(logits.isfinite().all())


def test_a_stream_set_forward_ends_up_as_one_that_went_there() -> None:
    ids, more = tokens(30), tokens(200, seed=1)
    jumped = stream_of(ids, StreamConfig(0, 9))
    jumped.skip_to(500)
    # Without sinks, what was read long ago leaves no trace, and rotations are relative.
    fresh = stream_of(tokens(77, seed=2), StreamConfig(0, 9))
    torch.testing.assert_close(jumped.feed(more)[-1], fresh.feed(more)[-1], rtol=0, atol=2e-3)


def test_what_lies_before_a_jump_cannot_be_gone_back_to() -> None:
    stream = stream_of(tokens(40))
    stream.skip_to(1000)
    assert max(stream._strategy.cache_for("test").max_rewind_now) == 0


def test_clocks_go_forward_only() -> None:
    with pytest.raises(InputError, match="the stream is empty"):
        Stream(tiny_lm().model, CONFIG).skip_to(10)
    stream = stream_of(tokens(40))
    with pytest.raises(InputError, match="position=39 has passed; choose 40 or more"):
        stream.skip_to(39)
    dense = stream_of(tokens(5), StreamConfig(strategy="dense"))
    with pytest.raises(UnsupportedFeatureError, match="strategy='dense' has no skip_to"):
        dense.skip_to(10)


def test_a_clock_cannot_be_set_past_entries_that_were_never_filled() -> None:
    stream = stream_of(tokens(5))
    with pytest.raises(InputError, match="position=1000"):
        stream.skip_to(1000)


def test_rewinding_right_after_a_jump_is_refused() -> None:
    stream = stream_of(tokens(40))
    stream.skip_to(1000)
    stream.feed(tokens(1, seed=1))
    with pytest.raises(Exception, match="goes back at most 0 tokens"):
        stream.rewind(5)
