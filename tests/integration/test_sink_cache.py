"""The cache by itself: what it holds, and what transformers may do to it."""

from __future__ import annotations

import gc

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from streamingllm import SinkCache
from streamingllm.errors import ConfigError, InputError, RewindError
from tests.reference.tiny_llama import random_ids, tiny_llama

EXACT = {"rtol": 0.0, "atol": 1e-10}


def run(cache: SinkCache, ids: Tensor, mask: Tensor | None = None) -> Tensor:
    with torch.no_grad():
        return tiny_llama()(ids, past_key_values=cache, attention_mask=mask).logits


def fed(ids: Tensor, **options: int) -> SinkCache:
    cache = SinkCache(tiny_llama(), **{"num_sink_tokens": 3, "window_size": 7} | options)
    run(cache, ids)
    return cache


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_every_pattern_of_padding_equals_the_tokens_alone(data: st.DataObject) -> None:
    batch = data.draw(st.integers(1, 3))
    widths = data.draw(st.lists(st.integers(1, 17), min_size=1, max_size=5))
    total = sum(widths)
    flags = data.draw(st.lists(st.booleans(), min_size=batch * total, max_size=batch * total))
    mask = torch.tensor(flags).view(batch, total).long()
    ids = random_ids(batch, total, seed=data.draw(st.integers(0, 99)))
    cache = SinkCache(tiny_llama(), 2, 5, max_rewind_tokens=4)
    done, logits = 0, []
    for width in widths:
        done += width
        logits.append(run(cache, ids[:, done - width : done], mask[:, :done]))
    together = torch.cat(logits, dim=1)
    assert cache.num_seen_tokens_per_stream.tolist() == mask.sum(1).tolist()
    for row in range(batch):
        kept = mask[row].bool()
        if kept.any():
            alone = run(SinkCache(tiny_llama(), 2, 5), ids[row, kept][None])
            torch.testing.assert_close(together[row, kept], alone[0], **EXACT)


def test_rows_can_be_reordered_repeated_and_selected() -> None:
    ids, more = random_ids(3, 20), random_ids(3, 9, seed=1)
    expected = run(fed(ids), more)
    reordered = fed(ids)
    reordered.reorder_cache(torch.tensor([2, 0, 1]))
    torch.testing.assert_close(run(reordered, more[[2, 0, 1]]), expected[[2, 0, 1]], **EXACT)
    repeated = fed(ids)
    repeated.batch_repeat_interleave(2)
    doubled = more.repeat_interleave(2, 0)
    torch.testing.assert_close(run(repeated, doubled), expected.repeat_interleave(2, 0), **EXACT)
    selected = fed(ids)
    selected.batch_select_indices(torch.tensor([1]))
    torch.testing.assert_close(run(selected, more[[1]]), expected[[1]], **EXACT)


def test_reordering_keeps_each_row_at_its_own_length() -> None:
    ids, mask = random_ids(2, 20), torch.ones(2, 20, dtype=torch.int64)
    mask[0, :6] = 0
    cache = SinkCache(tiny_llama(), 3, 7)
    run(cache, ids, mask)
    cache.reorder_cache(torch.tensor([1, 0]))
    assert cache.num_seen_tokens_per_stream.tolist() == [20, 14]


@pytest.mark.parametrize("num_seen", [1, 6, 7, 8, 10, 11, 25])
def test_three_numbers_that_are_not_one(num_seen: int) -> None:
    cache = fed(random_ids(1, num_seen))
    assert cache.num_seen_tokens == num_seen
    assert cache.num_cached_tokens == min(num_seen, 10)
    assert cache.cache_size == 10


def test_sinks_at_chosen_positions_are_what_stays_visible() -> None:
    ids = random_ids(1, 40)
    cache = SinkCache(tiny_llama(), 2, 5, sink_positions=(4, 20))
    run(cache, ids)
    before = run(cache.clone(), ids[:, :1])
    for position, matters in [(4, True), (20, True), (8, False), (12, False)]:
        changed = SinkCache(tiny_llama(), 2, 5, sink_positions=(4, 20))
        other = ids.clone()
        other[0, position] = (other[0, position] + 1) % 61
        run(changed, other[:, :21])
        # What is no sink and in no sink's own window has left no trace by now.
        run(changed, ids[:, 21:])
        difference = (run(changed, ids[:, :1]) - before).abs().max()
        assert bool(difference > 1e-9) == matters, position


def test_a_clone_goes_its_own_way() -> None:
    cache = fed(random_ids(1, 20))
    clone = cache.clone()
    run(clone, random_ids(1, 15, seed=4))
    more = random_ids(1, 9, seed=1)
    torch.testing.assert_close(run(cache, more), run(fed(random_ids(1, 20)), more), **EXACT)


def test_reset_forgets_everything() -> None:
    cache = fed(random_ids(1, 20))
    cache.reset()
    assert (cache.num_seen_tokens, cache.nbytes) == (0, 0)
    torch.testing.assert_close(
        run(cache, random_ids(2, 9)), run(SinkCache(tiny_llama(), 3, 7), random_ids(2, 9)), **EXACT
    )


def test_the_cache_keeps_no_gradients() -> None:
    model = tiny_llama.__wrapped__().requires_grad_(True)
    cache = SinkCache(model, 3, 7)
    for _ in range(3):
        model(random_ids(1, 5), past_key_values=cache)
        model(random_ids(1, 1), past_key_values=cache)
    assert not any(
        b.requires_grad for layer in cache.export_state().buffers.values() for b in layer
    )


def test_inference_mode_may_come_and_go() -> None:
    cache = SinkCache(tiny_llama(), 3, 7)
    with torch.inference_mode():
        tiny_llama()(random_ids(1, 20), past_key_values=cache)
    cache.rewind(2)
    run(cache, random_ids(1, 1))
    with torch.inference_mode():
        tiny_llama()(random_ids(1, 1), past_key_values=cache)
    expected = fed(torch.cat((random_ids(1, 20)[:, :18], random_ids(1, 1), random_ids(1, 1)), 1))
    more = random_ids(1, 5, seed=2)
    torch.testing.assert_close(run(cache, more), run(expected, more), **EXACT)


def test_a_batch_of_another_size_is_refused_and_nothing_is_lost() -> None:
    cache = fed(random_ids(2, 12))
    with pytest.raises(InputError, match="3 rows: this cache holds 2 streams"):
        run(cache, random_ids(3, 1))
    more = random_ids(2, 4)
    torch.testing.assert_close(run(cache, more), run(fed(random_ids(2, 12)), more), **EXACT)


def test_a_disabled_cache_says_so() -> None:
    with SinkCache(tiny_llama(), 3, 7) as cache:
        run(cache, random_ids(1, 3))
    with pytest.raises(InputError, match="disable"):
        run(cache, random_ids(1, 3))


def test_the_last_cache_leaves_no_trace_on_the_model() -> None:
    model = tiny_llama.__wrapped__()

    def trace() -> list[object]:
        hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]
        shadows = [sorted(m.__dict__) for m in model.modules()]
        return [hooks, shadows, model.config._attn_implementation]

    before = trace()
    first, second = SinkCache(model, 3, 7), SinkCache(model, 1, 4)
    model(random_ids(1, 3), past_key_values=first)
    first.disable()
    model(random_ids(1, 3), past_key_values=second)
    del second
    gc.collect()
    assert trace() == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window_size": 0}, "window_size=0"),
        ({"num_sink_tokens": -3}, "num_sink_tokens=-3"),
        ({"max_rewind_tokens": -1}, "max_rewind_tokens=-1"),
    ],
)
def test_bad_numbers_are_named(options: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SinkCache(tiny_llama(), **options)


def test_without_undo_a_cache_cannot_go_back_after_eviction() -> None:
    cache = fed(random_ids(1, 20), max_rewind_tokens=0)
    assert cache.rewind_nbytes == 0
    with pytest.raises(RewindError, match="at most 0 tokens"):
        cache.rewind(1)
