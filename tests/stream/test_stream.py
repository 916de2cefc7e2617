"""A stream's promises: splits do not matter, and going back is as if it had never happened."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from streamingllm import SamplingParams, Stream, StreamConfig
from streamingllm.errors import InputError, RewindError, UnsupportedFeatureError
from tests.reference.tiny_llama import VOCAB_SIZE, random_ids, tiny_llama

CONFIG = StreamConfig(num_sink_tokens=3, window_size=7, max_rewind_tokens=6, chunk_size=5)
EXACT = {"rtol": 0.0, "atol": 1e-10}


def stream_of(ids: Tensor, config: StreamConfig = CONFIG) -> Stream:
    stream = Stream(tiny_llama(), config)
    stream.feed(ids)
    return stream


@settings(max_examples=25, deadline=None)
@given(
    splits=st.lists(st.integers(1, 23), min_size=1, max_size=12),
    chunk_size=st.integers(1, 40),
    num_sinks=st.integers(0, 6),
    window=st.integers(1, 19),
)
def test_logits_do_not_depend_on_the_split(
    splits: list[int], chunk_size: int, num_sinks: int, window: int
) -> None:
    ids = random_ids(sum(splits))
    config = StreamConfig(num_sinks, window, chunk_size=chunk_size)
    stream = Stream(tiny_llama(), config)
    in_parts = torch.cat([stream.feed(part) for part in ids.split(splits)])
    at_once = Stream(tiny_llama(), StreamConfig(num_sinks, window, chunk_size=1000)).feed(ids)
    torch.testing.assert_close(in_parts, at_once, **EXACT)
    assert stream.num_seen_tokens == len(ids)
    assert stream.num_cached_tokens == min(len(ids), num_sinks + window)


@settings(max_examples=30, deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["feed", "rewind", "fork"]), st.integers(1, 6)), max_size=14
    )
)
def test_any_history_equals_a_fresh_stream_of_what_is_left(steps: list[tuple[str, int]]) -> None:
    stream, kept, fresh = Stream(tiny_llama(), CONFIG), [], iter(range(1000))
    forks: list[tuple[Stream, list[int]]] = []
    for action, count in [("feed", 5), *steps]:
        if action == "feed":
            new = [next(fresh) * 7 % VOCAB_SIZE for _ in range(count)]
            stream.feed(torch.tensor(new))
            kept += new
        elif action == "fork":
            forks.append((stream.fork(), list(kept)))
        else:
            try:
                stream.rewind(count)
            except RewindError:
                continue
            del kept[-count:]
    for branch, tokens in [*forks, (stream, kept)]:
        assert branch.num_seen_tokens == len(tokens)
        if tokens:
            expected = stream_of(torch.tensor(tokens)).next_logits
            torch.testing.assert_close(branch.next_logits, expected, **EXACT)
        more = random_ids(9, seed=1)
        expected = stream_of(torch.cat((torch.tensor(tokens, dtype=torch.int64), more))).next_logits
        torch.testing.assert_close(branch.feed(more, logits="last"), expected, **EXACT)


def test_rewind_reaches_exactly_max_rewind_tokens_after_eviction() -> None:
    ids = random_ids(50)
    for back in range(1, CONFIG.max_rewind_tokens + 1):
        stream = stream_of(ids)
        stream.rewind(back)
        torch.testing.assert_close(stream.next_logits, stream_of(ids[:-back]).next_logits, **EXACT)
    with pytest.raises(RewindError, match="at most 6 tokens"):
        stream_of(ids).rewind(CONFIG.max_rewind_tokens + 1)


def test_rewind_to_the_start_before_eviction() -> None:
    stream = stream_of(random_ids(7))
    stream.rewind(7)
    assert stream.num_seen_tokens == 0
    with pytest.raises(InputError, match="empty"):
        _ = stream.next_logits
    again = stream.feed(random_ids(30, seed=2))
    torch.testing.assert_close(again, Stream(tiny_llama(), CONFIG).feed(random_ids(30, seed=2)))


@pytest.mark.parametrize("seq", [1, 5])
def test_logits_of_a_chunk_belong_to_the_caller(seq: int) -> None:
    stream = stream_of(random_ids(20))
    stream.feed(random_ids(seq, seed=1)).zero_()
    assert stream.next_logits.any()


@pytest.mark.parametrize(("back", "message"), [(-1, ">= 0"), (9, "only 8 tokens")])
def test_rewind_refuses(back: int, message: str) -> None:
    stream = stream_of(random_ids(8))
    before = stream.next_logits
    with pytest.raises(RewindError, match=message):
        stream.rewind(back)
    assert torch.equal(stream.next_logits, before)


def test_streams_of_different_lengths_equal_each_alone() -> None:
    first, second = random_ids(2, 40), random_ids(2, 13, seed=1)
    mask = torch.ones_like(first)
    mask[0, :17] = 0
    mask[1, 30:34] = 0
    batch = Stream(tiny_llama(), CONFIG)
    logits = batch.feed(first, attention_mask=mask)
    later = batch.feed(second)
    for row in range(2):
        alone = Stream(tiny_llama(), CONFIG)
        kept = mask[row].bool()
        torch.testing.assert_close(logits[row][kept], alone.feed(first[row][kept]), **EXACT)
        torch.testing.assert_close(later[row], alone.feed(second[row]), **EXACT)
    assert batch.num_seen_tokens_per_stream.tolist() == [36, 49]


def test_rewind_of_streams_of_different_lengths() -> None:
    ids = random_ids(2, 30)
    mask = torch.ones_like(ids)
    mask[1, :27] = 0
    batch = Stream(tiny_llama(), CONFIG)
    batch.feed(ids, attention_mask=mask)
    batch.rewind(3)
    more = batch.feed(random_ids(2, 12, seed=3))
    for row, kept in enumerate((ids[0, :-3], ids[1, :0])):
        alone = Stream(tiny_llama(), CONFIG)
        tokens = torch.cat((kept, random_ids(2, 12, seed=3)[row]))
        torch.testing.assert_close(more[row], alone.feed(tokens)[-12:], **EXACT)


def test_greedy_generation_feeds_the_likeliest_token() -> None:
    stream, check = stream_of(random_ids(20)), stream_of(random_ids(20))
    tokens = list(stream.generate(40))
    expected = []
    for _ in range(40):
        expected.append(int(check.next_logits.argmax()))
        check.feed(torch.tensor(expected[-1:]))
    assert tokens == expected
    assert stream.num_seen_tokens == 60
    assert torch.equal(stream.next_logits, check.next_logits)


def test_sampling_is_reproducible_and_follows_its_generator() -> None:
    def sample(seed: int) -> list[int]:
        generator = torch.Generator().manual_seed(seed)
        options = SamplingParams(temperature=1.5, top_k=20, top_p=0.95)
        return list(stream_of(random_ids(9)).generate(30, sampling=options, generator=generator))

    assert sample(1) == sample(1)
    assert sample(1) != sample(2)


def test_generation_stops_after_a_stop_token() -> None:
    tokens = list(stream_of(random_ids(20)).generate(30))
    stop = tokens[11]
    stopped = list(stream_of(random_ids(20)).generate(30, stop_token_ids=[stop]))
    assert stopped == tokens[: tokens.index(stop) + 1]


def test_a_batch_goes_on_after_one_stream_has_stopped() -> None:
    ids = random_ids(3, 20)
    alone = [list(stream_of(row).generate(25)) for row in ids]
    stop = alone[1][6]
    batch = stream_of(ids)
    rows = [*zip(*batch.generate_batch(25, stop_token_ids=[stop]), strict=True)]
    for row, tokens in zip(rows, alone, strict=True):
        end = tokens.index(stop) + 1 if stop in tokens else 25
        assert [*row[:end]] == tokens[:end]
        assert set(row[end:]) <= {None}
    seen = batch.num_seen_tokens_per_stream.tolist()
    assert seen == [20 + sum(token is not None for token in row) for row in rows]


def test_last_and_none_leave_the_same_stream() -> None:
    ids = random_ids(33)
    whole = Stream(tiny_llama(), CONFIG)
    expected = whole.feed(ids)[-1]
    last, none = Stream(tiny_llama(), CONFIG), Stream(tiny_llama(), CONFIG)
    torch.testing.assert_close(last.feed(ids, logits="last"), expected, **EXACT)
    assert none.feed(ids, logits="none").numel() == 0
    torch.testing.assert_close(none.next_logits, expected, **EXACT)


def test_sinks_at_chosen_positions_equal_the_first_n_when_they_are_those() -> None:
    ids = random_ids(60)
    chosen = StreamConfig(3, 7, sink_positions=(0, 1, 2))
    torch.testing.assert_close(
        Stream(tiny_llama(), chosen).feed(ids), Stream(tiny_llama(), CONFIG).feed(ids), **EXACT
    )


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (torch.tensor([], dtype=torch.int64), "at least|one token"),
        (torch.tensor([VOCAB_SIZE]), f"contains {VOCAB_SIZE}, which is not in the vocabulary"),
        (torch.tensor([-1]), "contains -1"),
        (torch.tensor([0.5]), "float32"),
        ([1, 2], "is list"),
        (torch.zeros(1, 1, 1, dtype=torch.int64), "shape"),
        (torch.zeros(2, 3, dtype=torch.int64), "2 rows"),
    ],
)
def test_bad_ids_are_named_and_nothing_is_lost(ids: Tensor, message: str) -> None:
    stream = stream_of(random_ids(20))
    before = stream.next_logits.clone()
    with pytest.raises(InputError, match=message):
        stream.feed(ids)
    assert stream.num_seen_tokens == 20
    assert torch.equal(stream.next_logits, before)


def test_an_empty_stream_cannot_generate() -> None:
    with pytest.raises(InputError, match="feed at least one token"):
        Stream(tiny_llama(), CONFIG).generate(5)


def test_negative_max_new_tokens() -> None:
    with pytest.raises(InputError, match="max_new_tokens=-1"):
        stream_of(random_ids(5)).generate(-1)


def test_baselines_say_what_they_cannot_do() -> None:
    stream = stream_of(random_ids(5), StreamConfig(strategy="dense"))
    uses: tuple[Callable[[], object], ...] = (
        lambda: stream.rewind(1),
        lambda: stream.snapshot("x"),
    )
    for use in uses:
        with pytest.raises(UnsupportedFeatureError, match="strategy='dense'"):
            use()


def test_bytes_are_those_of_the_formula() -> None:
    stream = Stream(tiny_llama(), StreamConfig(3, 7, max_rewind_tokens=0))
    stream.feed(random_ids(2, 4))
    layers, heads, head_dim, element = 2, 2, 8, 8
    assert stream.nbytes == 2 * layers * heads * head_dim * (3 + 7) * element * 2
    assert stream.rewind_nbytes == 0
    stream.feed(random_ids(2, 40))
    assert stream.nbytes == 2 * layers * heads * head_dim * (3 + 7) * element * 2
