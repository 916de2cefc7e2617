"""A stream moved to another slot or engine goes on bit-identically."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from streamingllm import Engine, Grammar, LanguageModel, SamplingParams, StreamConfig
from streamingllm.cache.snapshot import snapshot_from_bytes
from streamingllm.engine import StreamState, scheduler
from streamingllm.errors import InputError, SnapshotError
from streamingllm.stream.next_token import choose_tokens
from tests.engine.driver import free, random_ids, run, start, tokens_of
from tests.reference.families import model_of
from tests.reference.tiny_folder import byte_tokenizer
from tests.reference.tiny_lm import tiny_lm

CONFIG = StreamConfig(num_sink_tokens=3, window_size=29, max_rewind_tokens=6, chunk_size=40)
PROMPT = random_ids(170, seed=1)
NEIGHBOUR = random_ids(9, seed=2)

WAYS: dict[str, SamplingParams] = {
    "greedy": free(60),
    "sampling": free(60, temperature=1.0, seed=5, top_p=0.95, repetition_penalty=1.2),
    "penalties": free(60, frequency_penalty=0.4, presence_penalty=0.3),
    "grammar": SamplingParams(1.0, seed=3, grammar=Grammar.regex("[a-z ]{60}")),
    "stop string": free(60, temperature=1.0, seed=6, stop_strings=["\u00e9\u00e9zz", "qqq"]),
}


@pytest.fixture
def logits_seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Tensor]]:
    """Logits of the first stream of each choice."""
    seen: list[Tensor] = []

    def listen(choosers: list[object], logits: Tensor, *rest: object) -> object:
        seen.append(logits.clone())
        return choose_tokens(choosers, logits, *rest)

    monkeypatch.setattr(scheduler, "choose_tokens", listen)
    return iter([seen])


def steps(engine: Engine, number: int) -> list[Any]:
    return [output for _ in range(number) for output in engine.step()]


def content(data: bytes) -> tuple[dict[str, list[object]], dict[str, Any]]:
    """Return tensors, as numbers, and facts."""
    tensors, facts = snapshot_from_bytes(data)
    return {name: tensor.flatten().tolist() for name, tensor in tensors.items()}, facts


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("num_steps", [2, 7, 25], ids=["prefilling", "decoding", "later"])
@pytest.mark.parametrize("target", ["another slot", "another engine", "as bytes"])
def test_next_logits_are_bit_identical(
    logits_seen: Iterator[list[Tensor]], way: str, num_steps: int, target: str
) -> None:
    seen = next(logits_seen)
    lm = tiny_lm()

    def engine() -> Engine:
        return Engine(lm, CONFIG, max_streams=3)

    # Uninterrupted: alone in its engine, in the batch shape of a single stream.
    with engine() as first:
        stream_id = start(first, PROMPT, WAYS[way])
        begun = steps(first, num_steps)
        seen.clear()
        expected = tokens_of(list(run(first)), stream_id)
        logits = [*seen]
    with engine() as first, engine() as second:
        stream_id = start(first, PROMPT, WAYS[way])
        again = steps(first, num_steps)
        assert [o.token_ids for o in again] == [o.token_ids for o in begun]
        state = first.export_state(stream_id)
        if target == "as bytes":
            state = StreamState.from_bytes(state.to_bytes())
        first.close_stream(stream_id)
        first.step()
        other = first if target == "another slot" else second
        blocked = other.open_stream()  # the stream gets another slot than it had
        moved = other.open_stream(state=state)
        other.close_stream(blocked)
        seen.clear()
        outputs = list(run(other))
        assert tokens_of(outputs, moved) == expected
        assert len(seen) == len(logits)
        assert all(torch.equal(a, b) for a, b in zip(seen, logits, strict=True))
    usage = outputs[-1].usage
    assert usage.num_prompt_tokens == len(PROMPT)


@pytest.mark.parametrize("cache", ["none", "int8"])
@pytest.mark.parametrize("name", ["llama", "gemma3", "gptj"])
def test_in_a_batch_in_every_kind_of_step(cache: str, name: str) -> None:
    lm = LanguageModel(model_of(name), byte_tokenizer(), name, "test")
    config = replace(CONFIG, quantize_cache=cache, window_size=13)
    prompt = random_ids(60, seed=1, vocab_size=60)

    def tokens(moves: bool) -> list[int]:
        with Engine(lm, config, max_streams=3) as engine:
            stream_id = start(engine, prompt, free(30))
            other = start(engine, prompt[:9], free(None))
            outputs = steps(engine, 9)
            if moves:
                state = engine.export_state(stream_id)
                engine.close_stream(stream_id)
                engine.take_outputs()
                moved = engine.open_stream(state=state)
            else:
                moved = stream_id
            outputs += steps(engine, 60)
            assert engine.state(other) == "decoding"
            return tokens_of(outputs, stream_id) + (tokens_of(outputs, moved) if moves else [])

    assert tokens(moves=True) == tokens(moves=False)


def test_the_state_of_a_stream_that_waits_or_is_idle() -> None:
    with Engine(tiny_lm(), CONFIG, max_streams=1) as engine:
        idle = start(engine, PROMPT, free(5))
        list(run(engine, close=False))
        waiting = engine.open_stream(state=engine.export_state(idle))
        twice = engine.open_stream(state=engine.export_state(waiting))
        assert engine.state(waiting) == engine.state(twice) == "waiting"
        found = []
        for stream_id in (idle, waiting, twice):
            engine.submit(stream_id, [7, 8], free(9))
            found.append(tokens_of(list(run(engine)), stream_id))
        assert found[0] == found[1] == found[2]


def test_a_state_holds_nothing_of_the_slots_stream_before() -> None:
    states = []
    for before in ([], random_ids(100, seed=8)):
        with Engine(tiny_lm(), CONFIG, max_streams=1) as engine:
            if before:
                start(engine, before, free(20))
                list(run(engine))
            stream_id = start(engine, PROMPT[:5], free(3))
            list(run(engine, close=False))
            states.append(engine.export_state(stream_id))
    assert content(states[0].to_bytes()) == content(states[1].to_bytes())
    assert states[0].nbytes > 0


def test_a_state_is_independent_of_its_stream() -> None:
    with Engine(tiny_lm(), CONFIG, max_streams=2) as engine:
        stream_id = start(engine, PROMPT, free(60, temperature=1.0, seed=2))
        steps(engine, 10)
        state = engine.export_state(stream_id)
        data = content(state.to_bytes())
        expected = tokens_of(list(run(engine)), stream_id)
        assert content(state.to_bytes()) == data
        for _ in range(2):
            moved = engine.open_stream(state=state)
            assert tokens_of(list(run(engine)), moved) == expected
        assert content(state.to_bytes()) == data


def test_damaged_and_foreign_states_are_refused() -> None:
    lm = tiny_lm()
    with Engine(lm, CONFIG, max_streams=1) as engine:
        stream_id = start(engine, PROMPT, free(5))
        list(run(engine, close=False))
        state = engine.export_state(stream_id)
        engine.close_stream(stream_id)
        data = state.to_bytes()
        for at in (0, 9, 200, len(data) // 2, len(data) - 1):
            damaged = bytearray(data)
            damaged[at] ^= 1
            with pytest.raises(SnapshotError):
                StreamState.from_bytes(bytes(damaged))
        for cut in (b"", data[:7], data[:100], data[:-1]):
            with pytest.raises(SnapshotError):
                StreamState.from_bytes(cut)
        with pytest.raises(InputError, match="pinned contradicts state"):
            engine.open_stream(pinned=[1], state=state)
        assert engine.stats().num_free_slots == 1
    changed = copy.deepcopy(lm.model)
    with torch.no_grad():
        next(iter(changed.parameters()))[0, 0] += 1.0
    with (
        Engine(replace(lm, model=changed), CONFIG, max_streams=1) as engine,
        pytest.raises(SnapshotError, match="another model"),
    ):
        engine.open_stream(state=state)
    for fields in ({"window_size": 30}, {"max_rewind_tokens": 7}, {"quantize_cache": "int8"}):
        with (
            Engine(lm, replace(CONFIG, **fields), max_streams=1) as engine,
            pytest.raises(InputError, match="use an engine of the same layout"),
        ):
            engine.open_stream(state=state)


def test_facts_of_a_state_are_json() -> None:
    with Engine(tiny_lm(), CONFIG, max_streams=1) as engine:
        stream_id = start(engine, PROMPT, WAYS["sampling"])
        steps(engine, 10)
        state = engine.export_state(stream_id)
        assert json.loads(json.dumps(state.generation)) == state.generation
