"""Whatever happens around a stream, it gets the tokens that it would get alone."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from streamingllm import Engine, LanguageModel, Stream, StreamConfig
from streamingllm.engine import StreamState, scheduler
from streamingllm.errors import CapacityError, InputError, RewindError
from streamingllm.stream.next_token import choose_tokens
from tests.engine.driver import ENDLESS, Record, free, random_ids, run, start, tokens_of
from tests.reference.families import FAMILIES, model_of
from tests.reference.tiny_folder import byte_tokenizer
from tests.reference.tiny_lm import tiny_lm

CONFIG = StreamConfig(num_sink_tokens=3, window_size=13, max_rewind_tokens=6, chunk_size=40)

GENERATING = ("prefilling", "decoding", "paused")
# The states of a stream in which an action is not refused; opening and stepping need no stream.
ALLOWED = {
    "open": (),
    "steps": (),
    "pause": ("waiting", *GENERATING),
    "resume": ("waiting", *GENERATING),
    "fork": (*GENERATING, "idle"),
    "abort": ("waiting", *GENERATING, "idle"),
    "submit": ("waiting", "idle"),
    "rewind": ("idle",),
    "close": ("waiting", *GENERATING, "idle"),
    "move": ("waiting", *GENERATING, "idle"),
}
EVERY_ACTION = [
    ("open", 20), ("steps", 6), ("fork", 0), ("pause", 1), ("steps", 2), ("resume", 1),
    ("abort", 0), ("rewind", 2), ("submit", 4), ("steps", 3), ("move", 1), ("steps", 2),
    ("abort", 1), ("close", 1),
]  # fmt: skip


def test_any_schedule() -> None:
    succeeded: Counter[str] = Counter()

    @settings(max_examples=30, deadline=None)
    @given(
        actions=st.lists(
            st.tuples(st.sampled_from(list(ALLOWED)), st.integers(0, 60)), min_size=10, max_size=30
        ),
        num_sinks=st.sampled_from([0, 3]),
    )
    @example(actions=EVERY_ACTION, num_sinks=3)
    def check(actions: list[tuple[str, int]], num_sinks: int) -> None:
        before = succeeded.copy()
        run_schedule(actions, num_sinks, succeeded)
        if actions == EVERY_ACTION:
            assert succeeded - before == Counter(action for action, _ in EVERY_ACTION)

    check()
    assert set(succeeded) == set(ALLOWED)


def run_schedule(actions: list[tuple[str, int]], num_sinks: int, succeeded: Counter[str]) -> None:
    """Do what can be done, check that the rest is refused for its reason, and compare tokens."""
    config = StreamConfig(num_sinks, 13, max_rewind_tokens=6, chunk_size=40)
    with Engine(tiny_lm(), config, max_streams=4, max_waiting=2) as engine:
        record = Record(engine)
        for seed, (action, number) in enumerate(actions):
            live = engine.stream_ids
            # Where no stream allows the action, it is tried all the same and must be refused.
            choice = [s for s in live if engine.state(s) in ALLOWED[action]] or live
            stream_id = choice[number % len(choice)] if choice else ""
            if not stream_id and action not in ("open", "steps"):
                continue
            state = engine.state(stream_id) if stream_id else None
            is_idle = stream_id and not is_generating(engine, stream_id)
            try:
                act(record, action, number, stream_id, random_ids(number + 1, seed))
            except CapacityError:
                assert action in ("open", "fork")
                assert len(live) >= 4
            except RewindError:
                assert action == "rewind"
                assert number % 8 > 0
            except InputError:
                assert state not in ALLOWED[action] or (action == "submit" and not is_idle)
            else:
                assert action in ("open", "steps") or state in ALLOWED[action]
                succeeded[action] += 1
        for _ in range(4):
            record.step()
        record.check()


def is_generating(engine: Engine, stream_id: str) -> bool:
    state = engine.export_state(stream_id)
    return state.generation is not None and state.finish_reason is None


def act(record: Record, action: str, number: int, stream_id: str, ids: list[int]) -> None:
    """Do one action and write it down; a refusal is raised before anything is written."""
    engine = record.engine
    if action == "open":
        record.start(ids)
    elif action == "steps":
        for _ in range(number % 7):
            record.step()
    elif action == "fork":
        record.copy(stream_id, engine.fork(stream_id))
    elif action == "submit":
        engine.submit(stream_id, ids, ENDLESS)
        record.read(stream_id, ids)
    elif action == "rewind":
        engine.rewind(stream_id, number % 8)
        record.rewind(stream_id, number % 8)
    elif action == "move":
        data = engine.export_state(stream_id).to_bytes()
        engine.close_stream(stream_id)
        record.copy(stream_id, engine.open_stream(state=StreamState.from_bytes(data)))
    elif action == "close":
        engine.close_stream(stream_id)
    else:
        getattr(engine, action)(stream_id)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 16, 17, 90])
@pytest.mark.parametrize("cache", ["none", "int8"])
def test_a_prompt_of_any_length(length: int, cache: str) -> None:
    config = StreamConfig(3, 13, quantize_cache=cache, chunk_size=32)
    with Engine(tiny_lm(), config, max_streams=2) as engine:
        record = Record(engine)
        for seed in range(2):
            record.start(random_ids(length, seed), free(30))
        record.run()
        record.check()
        assert [sum(flags) for flags in record.is_generated.values()] == [30, 30]


def test_more_streams_than_slots_wait_their_turn() -> None:
    with Engine(tiny_lm(), CONFIG, max_streams=2) as engine:
        record = Record(engine)
        ids = [record.start(random_ids(5 + 11 * seed, seed), free(9)) for seed in range(7)]
        assert [engine.state(i) for i in ids] == ["prefilling"] * 2 + ["waiting"] * 5
        record.run()
        record.check()
        assert [sum(flags) for flags in record.is_generated.values()] == [9] * 7


# gptj and bloom have no decode step, deepseek's latent cache has none, gemma3 mixes two geometries.
@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma3", "gpt-oss", "gptj", "bloom", "mpt"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_families(name: str, dtype: torch.dtype) -> None:
    lm = LanguageModel(model_of(name, dtype), byte_tokenizer(), name, "test")
    config = StreamConfig(*FAMILIES[name].shapes[0], chunk_size=16)
    with Engine(lm, config, max_streams=3) as engine:
        assert (engine.batching_unsupported_reason is None) == (
            dtype is torch.float32 and name in ("llama", "qwen3", "gemma3", "gpt-oss")
        )
        record = Record(engine)
        for seed, length in enumerate((1, 30, 7)):
            record.start(random_ids(length, seed, 60), free(25))
        record.run()
        record.check()


def test_logits_are_those_of_a_stream_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = tiny_lm()
    seen = logits_by_chooser(monkeypatch)
    with Engine(lm, CONFIG, max_streams=3) as engine:
        prompts = {start(engine, random_ids(n, n), free(20)): random_ids(n, n) for n in (3, 50)}
        outputs = list(run(engine))
    for (stream_id, prompt), logits in zip(prompts.items(), seen.values(), strict=True):
        ids = torch.tensor(prompt + tokens_of(outputs, stream_id))
        alone = Stream(lm.model, CONFIG).feed(ids)[len(prompt) - 1 : -1]
        torch.testing.assert_close(torch.stack(logits), alone, rtol=0, atol=1e-4)


def logits_by_chooser(monkeypatch: pytest.MonkeyPatch) -> dict[object, list[Tensor]]:
    """Listen to what tokens are chosen from."""
    seen: dict[object, list[Tensor]] = defaultdict(list)

    def listen(choosers: list[object], logits: Tensor, *rest: object) -> object:
        for chooser, row in zip(choosers, logits, strict=True):
            seen[chooser].append(row.clone())
        return choose_tokens(choosers, logits, *rest)

    monkeypatch.setattr(scheduler, "choose_tokens", listen)
    return seen


def test_the_default_model(default_model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    config = StreamConfig(4, 60)
    seen = logits_by_chooser(monkeypatch)
    texts = ("The", "The capital of France is Paris, and " * 12, "Once upon a time")
    with Engine(default_model, config, max_streams=3) as engine:
        ids = [start(engine, text, free(12)) for text in texts]
        outputs = list(run(engine))
    by_first = sorted(seen.values(), key=lambda logits: len(logits))
    assert [len(logits) for logits in by_first] == [12] * 3
    for stream_id, text in zip(ids, texts, strict=True):
        generated = tokens_of(outputs, stream_id)
        alone = Stream(default_model.model, config)
        prompt = default_model.encode(text)
        alone.feed(prompt, logits="none")
        assert generated == list(alone.generate(12))
        fed = torch.cat((prompt, torch.tensor(generated)))
        logits = Stream(default_model.model, config).feed(fed)[len(prompt) - 1 : -1]
        closest = min(seen.values(), key=lambda rows: float((rows[0] - logits[0]).abs().max()))
        torch.testing.assert_close(torch.stack(closest), logits, rtol=1e-5, atol=1e-4)
