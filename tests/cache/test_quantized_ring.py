"""An eight-bit window: what it costs, how exact it is, and that a stream's promises hold."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from streamingllm import SinkCache, Stream, StreamConfig
from streamingllm.cache.quantized_ring import QuantizedRingLayer
from streamingllm.kernels.rows import decode_rows
from tests.reference.families import model_of
from tests.reference.rounding import assert_rounded_alike
from tests.reference.tiny_llama import random_ids, tiny_llama
from tests.reference.tiny_lm import tiny_lm

N, M, REWIND = 3, 7, 6
CONFIG = StreamConfig(N, M, max_rewind_tokens=REWIND, quantize_cache="int8", chunk_size=5)
EXACT = {"rtol": 0.0, "atol": 1e-10}
# A row is rounded from the numbers of its own pass, so splits may move it by a code now and then.
ROUNDED = {"rtol": 0.0, "atol": 0.05}


def quantised(ids: Tensor, config: StreamConfig = CONFIG) -> Stream:
    stream = Stream(tiny_llama(), config)
    stream.feed(ids)
    return stream


def layers_of(stream: Stream) -> list[QuantizedRingLayer]:
    layers = stream._strategy.cache_for("test").rings
    return [layer for layer in layers if isinstance(layer, QuantizedRingLayer)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_bytes_are_codes_and_scales_of_the_window_and_exact_sinks(dtype: torch.dtype) -> None:
    stream = Stream(tiny_llama(dtype), CONFIG)
    stream.feed(random_ids(2, 9))
    heads, size, num_layers, batch = 2, 8, 2, 2
    per_head = M * (size + 4) + N * size * dtype.itemsize
    assert stream.nbytes == 2 * num_layers * batch * heads * per_head
    assert stream.rewind_nbytes == 2 * num_layers * batch * heads * (REWIND + 1) * (size + 4)
    before = stream.nbytes
    stream.feed(random_ids(2, 50))
    assert stream.nbytes == before


def test_logits_are_close_to_those_of_an_exact_cache() -> None:
    ids = random_ids(60)
    ours = Stream(tiny_llama(), CONFIG).feed(ids)
    exact = Stream(tiny_llama(), StreamConfig(N, M)).feed(ids)
    assert not torch.equal(ours, exact)
    torch.testing.assert_close(ours, exact, rtol=0, atol=0.02)


@pytest.mark.parametrize("chunk_size", [1, 2, 5, 19, 60])
def test_splits_agree(chunk_size: int) -> None:
    ids = random_ids(60)
    at_once = Stream(tiny_llama(), StreamConfig(N, M, quantize_cache="int8", chunk_size=1000))
    stream = Stream(tiny_llama(), CONFIG)
    in_parts = torch.cat([stream.feed(part) for part in ids.split(chunk_size)])
    torch.testing.assert_close(in_parts, at_once.feed(ids), **ROUNDED)


@pytest.mark.parametrize("chunk_size", [1, 4, 40])
def test_sinks_stay_exact_after_eviction(chunk_size: int) -> None:
    ids = random_ids(40)
    stream, exact = Stream(tiny_llama(), CONFIG), Stream(tiny_llama(), StreamConfig(N, M))
    for part in ids.split(chunk_size):
        stream.feed(part)
        exact.feed(part)
    # Nothing comes before the first layer, so there only the rounding of rows could tell.
    first, other = layers_of(stream)[0], exact._strategy.cache_for("test").rings[0]
    torch.testing.assert_close(first.k_sinks, other.k_cache[:, :, :N], **EXACT)
    torch.testing.assert_close(first.v_sinks, other.v_cache[:, :, :N], **EXACT)
    rounded = decode_rows(first.k_cache).to(torch.float64)
    window = other.k_cache[:, :, N:]
    half_step = window.abs().amax(-1, keepdim=True) / 127 / 2
    assert bool(((rounded - window).abs() <= half_step * 1.001).all())


@pytest.mark.parametrize("num_seen", [5, 10, 11, 40])
def test_going_back_is_as_if_it_had_never_happened(num_seen: int) -> None:
    ids, more = random_ids(num_seen), random_ids(9, seed=1)
    back = min(REWIND, num_seen - 1)
    stream = quantised(ids)
    stream.feed(random_ids(back, seed=2))
    stream.rewind(back)
    untouched = quantised(ids)
    for ours, theirs in zip(layers_of(stream), layers_of(untouched), strict=True):
        assert torch.equal(ours.k_sinks, theirs.k_sinks)
    torch.testing.assert_close(stream.next_logits, untouched.next_logits, **ROUNDED)
    torch.testing.assert_close(stream.feed(more), untouched.feed(more), **ROUNDED)


def test_the_window_is_restored_to_the_bit_by_rewind() -> None:
    cache = SinkCache(tiny_llama(), N, M, max_rewind_tokens=REWIND, quantize_cache="int8")
    run(cache, random_ids(1, 30))
    before = [layer.k_cache.clone() for layer in cache.rings]
    run(cache, random_ids(1, 4, seed=1))
    for token in random_ids(1, 2, seed=2).split(1, dim=1):
        run(cache, token)
    cache.rewind(6)
    for layer, window in zip(cache.rings, before, strict=True):
        assert torch.equal(layer.k_cache, window)


def run(cache: SinkCache, ids: Tensor) -> Tensor:
    with torch.no_grad():
        return tiny_llama()(ids, past_key_values=cache).logits


def test_a_fork_goes_its_own_way() -> None:
    ids, more = random_ids(30), random_ids(12, seed=1)
    stream = quantised(ids)
    fork = stream.fork()
    fork.feed(random_ids(20, seed=2))
    assert torch.equal(stream.feed(more), quantised(ids).feed(more))


@pytest.mark.parametrize("num_tokens", [1, 8, 40])
def test_a_restored_stream_is_exact_to_the_bit(tmp_path: Path, num_tokens: int) -> None:
    stream = quantised(random_ids(num_tokens))
    stream.snapshot(tmp_path / "stream")
    restored = Stream.restore(tiny_llama(), tmp_path / "stream")
    assert restored.config == CONFIG
    assert torch.equal(restored.next_logits, stream.next_logits)
    for ours, theirs in zip(layers_of(restored), layers_of(stream), strict=True):
        for name, tensor in theirs.buffers.items():
            assert torch.equal(ours.buffers[name], tensor), name
    more = random_ids(30, seed=1)
    assert torch.equal(restored.feed(more), stream.feed(more))
    restored.rewind(5)
    stream.rewind(5)
    assert list(restored.generate(9)) == list(stream.generate(9))


@pytest.mark.parametrize("num_seen", [2, 9, 30])
@pytest.mark.parametrize("num_tokens", [1, 4])
def test_a_pass_that_fails_leaves_everything_as_it_was(num_seen: int, num_tokens: int) -> None:
    model = tiny_llama.__wrapped__()
    cache = SinkCache(model, N, M, max_rewind_tokens=REWIND, quantize_cache="int8")
    model(random_ids(1, num_seen), past_key_values=cache)
    before = [{n: b.clone() for n, b in layer.buffers.items()} for layer in cache.rings]

    def fail(*args: object) -> None:
        raise RuntimeError("out of memory")

    handle = model.model.layers[1].mlp.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        model(random_ids(1, num_tokens, seed=3), past_key_values=cache)
    handle.remove()
    assert cache.num_seen_tokens == num_seen
    for layer, buffers in zip(cache.rings, before, strict=True):
        for name, length in (("k_cache", M), ("v_cache", M), ("k_sinks", N), ("v_sinks", N)):
            filled = slice(min(num_seen, length))
            now, then = layer.buffers[name][:, :, filled], buffers[name][:, :, filled]
            assert torch.equal(now, then), name
    more = random_ids(1, 8, seed=4)
    other = SinkCache(model, N, M, max_rewind_tokens=REWIND, quantize_cache="int8")
    model(random_ids(1, num_seen), past_key_values=other)
    ours, expected = (model(more, past_key_values=c).logits for c in (cache, other))
    torch.testing.assert_close(ours, expected, **EXACT)


@pytest.mark.parametrize("family", ["gemma3", "gpt-oss", "cohere2", "smollm3", "deepseek-v3"])
def test_other_families_read_from_eight_bits(family: str) -> None:
    model: nn.Module = model_of(family)
    ids = random_ids(40)
    config = StreamConfig(4, 12, quantize_cache="int8")
    ours, exact = Stream(model, config).feed(ids), Stream(model, StreamConfig(4, 12)).feed(ids)
    lost = Stream(model, StreamConfig(4, 11)).feed(ids)
    of_a_token = mean_difference(lost, exact)
    assert mean_difference(ours, exact) < of_a_token / 4
    stream = Stream(model, config)
    in_parts = torch.cat([stream.feed(part) for part in ids.split([17, 1, 1, 21])])
    assert mean_difference(in_parts, ours) < of_a_token / 20


def mean_difference(a: Tensor, b: Tensor) -> float:
    """Return how far apart two predictions are, [seq, vocab], in nats."""
    return float((a.log_softmax(-1) - b.log_softmax(-1)).abs().mean())


def test_streams_of_different_lengths_are_held_together() -> None:
    ids, mask = random_ids(2, 30), torch.ones(2, 30)
    mask[0, :11] = 0
    together = Stream(tiny_llama(), CONFIG)
    together.feed(ids, attention_mask=mask)
    for row, first in enumerate((11, 0)):
        alone = quantised(ids[row, first:])
        torch.testing.assert_close(together.next_logits[row], alone.next_logits, **ROUNDED)


def test_steps_by_the_operator_equal_steps_by_the_model() -> None:
    model, ids = tiny_lm().model, random_ids(60)
    config = StreamConfig(N, M, quantize_cache="int8")
    stepping, chunked = Stream(model, config), Stream(model, config)
    lost = Stream(model, StreamConfig(N, M - 1, quantize_cache="int8"))
    for each in (stepping, chunked, lost):
        each.feed(ids[:20])
    steps = torch.stack([stepping.feed(token, logits="last") for token in ids[20:].split(1)])
    assert_rounded_alike(steps, chunked.feed(ids[20:]), lost.feed(ids[20:]))
