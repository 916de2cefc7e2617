"""A stream of a hybrid model: rewind, failure, copies, batches, constant memory."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from streamingllm import SinkCache, Stream, StreamConfig
from streamingllm.errors import RewindError
from tests.reference.family_passes import difference, tokens
from tests.reference.hybrids import hybrid_model

# Convolutions only; delta rule; both in each layer; fed token by token.
NAMES = ["lfm2", "qwen3_next", "falcon_h1", "jamba"]
CONFIG = StreamConfig(2, 6, max_rewind_tokens=4, chunk_size=16)
TOLERANCE = 3e-4


def fed(name: str, ids: Tensor, config: StreamConfig = CONFIG) -> Stream:
    stream = Stream(hybrid_model(name), config)
    stream.feed(ids, logits="none")
    return stream


def continuation(stream: Stream, seed: int = 9) -> Tensor:
    """Return logits of what follows, which depend on all that the stream holds."""
    rows = 1 if stream.next_logits.ndim == 1 else len(stream.next_logits)
    ids = tokens(rows, 12, seed=seed)
    logits = stream.next_logits[..., None, :]
    return torch.cat((logits, stream.feed(ids[0] if stream.next_logits.ndim == 1 else ids)), -2)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("num_tokens", [3, 7, 30, 57])
@pytest.mark.parametrize("back", [1, 3, 4])
def test_rewind_is_as_if_never_fed(name: str, num_tokens: int, back: int) -> None:
    ids = tokens(60)
    if back >= num_tokens:
        pytest.skip("nothing remains")
    stream = fed(name, ids[:num_tokens])
    stream.rewind(back)
    never = fed(name, ids[: num_tokens - back])
    assert stream.num_seen_tokens == never.num_seen_tokens
    assert difference(continuation(stream), continuation(never)) <= TOLERANCE


@pytest.mark.parametrize("name", ["lfm2", "qwen3_next"])
def test_a_random_walk_of_feeding_and_rewinding_equals_the_text_that_remains(name: str) -> None:
    choose = random.Random(1)
    stream, text = Stream(hybrid_model(name), CONFIG), tokens(0)
    for step in range(40):
        new = tokens(choose.choice((1, 1, 2, 5, 11, 30)), seed=step)
        stream.feed(new, logits="none")
        text = torch.cat((text, new))
        back = choose.randint(0, 4)
        try:
            stream.rewind(back)
        except RewindError:
            assert back > min(stream._strategy.cache_for("rewind").max_rewind_now)
        else:
            text = text[: len(text) - back]
        assert stream.num_seen_tokens == len(text)
    assert difference(continuation(stream), continuation(fed(name, text))) <= TOLERANCE


@pytest.mark.parametrize("size", [1, 2, 5, 7, 16])
def test_a_stream_always_goes_back_by_max_rewind_tokens(size: int) -> None:
    stream = Stream(hybrid_model("lfm2"), CONFIG)
    cache = stream._strategy.cache_for("rewind")
    for part in tokens(80).split(size):
        stream.feed(part, logits="none")
        assert min(cache.max_rewind_now) >= min(CONFIG.max_rewind_tokens, stream.num_seen_tokens)


def test_rewinding_further_than_the_checkpoints_is_refused_and_changes_nothing() -> None:
    ids = tokens(50)
    stream, same = fed("qwen3_next", ids), fed("qwen3_next", ids)
    with pytest.raises(RewindError, match=r"at most \d+ tokens now; set max_rewind_tokens"):
        stream.rewind(30)
    assert torch.equal(continuation(stream), continuation(same))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [1, 5, 16])
def test_a_pass_that_fails_leaves_states_as_they_were(name: str, size: int) -> None:
    stream, new = fed(name, tokens(21)), tokens(size, seed=3)
    same, counted = stream.fork(), stream.fork()
    decoder: Any = stream.model.get_decoder()
    calls: list[int] = []
    handle = decoder.layers[-1].register_forward_hook(lambda *_: calls.append(1))
    counted.feed(new)
    handle.remove()
    last = len(calls)

    def fail(*_: object) -> None:
        calls.append(1)
        if len(calls) == 2 * last:
            raise KeyboardInterrupt

    handle = decoder.layers[-1].register_forward_hook(fail)
    with pytest.raises(KeyboardInterrupt):
        stream.feed(new)
    handle.remove()
    assert stream.num_seen_tokens == 21
    assert torch.equal(continuation(stream), continuation(same))


@pytest.mark.parametrize("name", NAMES)
def test_the_first_pass_may_fail(name: str) -> None:
    stream = Stream(hybrid_model(name), CONFIG)
    decoder: Any = stream.model.get_decoder()

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    handle = decoder.layers[-1].register_forward_hook(fail)
    with pytest.raises(KeyboardInterrupt):
        stream.feed(tokens(9))
    handle.remove()
    stream.feed(tokens(9, seed=1), logits="none")
    expected = continuation(fed(name, tokens(9, seed=1)))
    assert torch.equal(continuation(stream), expected)


@pytest.mark.parametrize("name", NAMES)
def test_forks_and_snapshots_go_on_alike_and_apart(name: str, tmp_path: Path) -> None:
    stream = fed(name, tokens(33))
    stream.snapshot(tmp_path / "stream.safetensors")
    fork = stream.fork()
    restored = Stream.restore(hybrid_model(name), tmp_path / "stream.safetensors")
    fork.feed(tokens(9, seed=4))
    for other in (restored, stream.fork()):
        assert torch.equal(other.next_logits, stream.next_logits)
        other.rewind(3)
    stream.rewind(3)
    expected = continuation(stream)
    assert difference(continuation(restored), expected) <= 1e-9
    assert difference(continuation(fork), expected) > 1e-2


@pytest.mark.parametrize("name", NAMES)
def test_memory_is_constant_and_counted(name: str) -> None:
    stream = fed(name, tokens(1))
    before = stream.nbytes, stream.rewind_nbytes
    stream.feed(tokens(70), logits="none")
    assert (stream.nbytes, stream.rewind_nbytes) == before
    cache = stream._strategy.cache_for("nbytes")
    states = cache.states
    assert states is not None
    in_layers = [
        state
        for layer in cache.layers
        for kind in ("conv_states", "recurrent_states")
        for state in getattr(layer, kind, {}).values()
        if state is not None
    ]
    bytes_of_states = sum(state.nbytes for state in in_layers)
    assert states.nbytes == bytes_of_states > 0
    assert states.rewind_nbytes == 2 * bytes_of_states
    assert stream.nbytes == bytes_of_states + sum(ring.nbytes for ring in cache.rings)


@pytest.mark.parametrize("name", NAMES)
def test_rows_of_a_batch_end_are_chosen_and_repeated(name: str) -> None:
    model, ids = hybrid_model(name), tokens(2, 25)
    with SinkCache(model, 2, 6, max_rewind_tokens=4) as cache, torch.no_grad():
        model(ids, past_key_values=cache)
        cache.batch_repeat_interleave(2)
        cache.reorder_cache(torch.tensor([3, 0, 2]))
        assert cache.batch_size == 3
        more = tokens(3, 7, seed=2)
        got = model(more, past_key_values=cache).logits
        cache.rewind(torch.tensor([2, 0, 4]))
        assert cache.num_seen_tokens_per_stream.tolist() == [30, 32, 28]
        last = model(tokens(3, 2, seed=6), past_key_values=cache).logits
    for row, (source, kept) in enumerate(((1, 5), (0, 7), (1, 3))):
        text = torch.cat((ids[source], more[row]))
        logits = Stream(model, CONFIG).feed(text)
        assert difference(got[row], logits[25:]) <= TOLERANCE
        text = torch.cat((ids[source], more[row, :kept], tokens(3, 2, seed=6)[row]))
        assert difference(last[row], Stream(model, CONFIG).feed(text)[-2:]) <= TOLERANCE


@pytest.mark.parametrize("name", NAMES)
def test_generate_of_transformers_pads_ends_and_goes_on(name: str) -> None:
    """A second turn hides the padding that `generate` fed to a row after its end."""
    model: Any = hybrid_model(name)
    ids = tokens(2, 12)
    mask = torch.ones_like(ids)
    mask[0, :4] = 0
    options: dict[str, Any] = {"do_sample": False, "pad_token_id": 0}
    options |= {"max_new_tokens": 6, "eos_token_id": -1}
    with SinkCache(model, 2, 6, max_rewind_tokens=4) as cache:
        options["past_key_values"] = cache
        first = model.generate(ids, attention_mask=mask, **options)
        more = torch.cat((first, tokens(2, 5, seed=8)), 1)
        # The first row is said to have ended two tokens ago.
        mask = torch.cat((mask, torch.ones(2, 11, dtype=torch.int64)), 1)
        mask[0, 16:18] = 0
        second = model.generate(more, attention_mask=mask, **options)
    for row in range(2):
        stream = Stream(model, CONFIG)
        stream.feed(ids[row, mask[row, :12].bool()])
        assert [*stream.generate(6)] == first[row, 12:].tolist()
        fed_row = Stream(model, CONFIG)
        fed_row.feed(more[row, mask[row].bool()])
        assert [*fed_row.generate(6)] == second[row, more.shape[1] :].tolist()
