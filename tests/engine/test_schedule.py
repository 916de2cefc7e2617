"""Whatever happens around a stream, it gets the tokens that it would get alone."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from streamingllm import Engine, GenerationParams, LanguageModel, Stream, StreamConfig
from streamingllm.engine import EngineStream, scheduler
from streamingllm.engine.generation_state import choose_tokens
from streamingllm.errors import CapacityError, InputError, RewindError
from tests.reference.families import FAMILIES, model_of
from tests.reference.tiny_folder import byte_tokenizer
from tests.reference.tiny_lm import tiny_lm

CONFIG = StreamConfig(num_sink_tokens=3, window_size=13, max_rewind_tokens=6, chunk_size=40)
ENDLESS = GenerationParams(max_new_tokens=None, ignore_eos=True)
TIE = 1e-3  # what floating point may turn round


def tokens(length: int, seed: int, vocab_size: int = 257) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, vocab_size, (length,), generator=generator).tolist()


def check_alone(
    lm: LanguageModel, ids: list[int], is_written: list[bool], config: StreamConfig = CONFIG
) -> None:
    """Compare each written token with what a stream of its own finds argmax."""
    logits = Stream(lm.model, config).feed(torch.tensor(ids))
    best = logits.max(dim=-1)
    for i in range(1, len(ids)):
        if is_written[i]:
            assert logits[i - 1, ids[i]] >= best.values[i - 1] - TIE, f"token {i} of {len(ids)}"


class Diary:
    """What each stream has read and written, told from outside."""

    def __init__(self, lm: LanguageModel, engine: Engine) -> None:
        self.lm, self.engine = lm, engine
        self.ids: dict[EngineStream, list[int]] = defaultdict(list)
        self.is_written: dict[EngineStream, list[bool]] = defaultdict(list)

    def read(self, stream: EngineStream, ids: list[int]) -> None:
        self.ids[stream] += ids
        self.is_written[stream] += [False] * len(ids)

    def step(self) -> None:
        for event in self.engine.step():
            assert event.stream.error is None
            if event.token is not None:
                self.ids[event.stream].append(event.token)
                self.is_written[event.stream].append(True)

    def fork(self, stream: EngineStream, other: EngineStream) -> None:
        self.ids[other] = [*self.ids[stream]]
        self.is_written[other] = [*self.is_written[stream]]

    def rewind(self, stream: EngineStream, num_tokens: int) -> None:
        keep = len(self.ids[stream]) - num_tokens
        del self.ids[stream][keep:]
        del self.is_written[stream][keep:]

    def check(self) -> None:
        for stream, ids in self.ids.items():
            if stream.state in ("writing", "reading", "idle"):
                assert stream.num_seen_tokens + len(stream.pending) == len(ids)
            check_alone(self.lm, ids, self.is_written[stream], self.engine.config)


# The states of a stream in which an action is not refused; a submission needs no stream.
ALLOWED = {
    "submit": (),
    "steps": (),
    "pause": ("waiting", "reading", "writing", "paused"),
    "resume": ("waiting", "reading", "writing", "paused"),
    "fork": ("reading", "writing", "paused", "idle"),
    "cancel": ("waiting", "reading", "writing", "paused", "idle", "finished"),
    "feed": ("idle",),
    "rewind": ("idle",),
    "release": ("idle", "finished"),
}
EVERY_ACTION = [
    ("submit", 20), ("steps", 6), ("fork", 0), ("pause", 1), ("steps", 2), ("resume", 1),
    ("cancel", 0), ("rewind", 2), ("feed", 4), ("steps", 3), ("cancel", 1), ("release", 1),
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
    lm = tiny_lm()
    config = StreamConfig(num_sinks, 13, max_rewind_tokens=6, chunk_size=40)
    with Engine(lm, config, max_streams=4, max_waiting=2) as engine:
        diary = Diary(lm, engine)
        for seed, (action, number) in enumerate(actions):
            live = engine.streams
            # Where no stream allows the action, it is tried all the same and must be refused.
            choice = [s for s in live if s.state in ALLOWED[action]] or live
            stream = choice[number % len(choice)] if choice else None
            if stream is None and action not in ("submit", "steps"):
                continue
            state = None if stream is None else stream.state
            try:
                act(diary, action, number, stream, tokens(number + (action == "submit"), seed))
            except CapacityError:
                assert action in ("submit", "fork")
                assert len(live) >= 4
            except RewindError:
                assert action == "rewind"
                assert number % 8 > 0
            except InputError:
                # A feed of nothing is refused where nothing is unread either.
                assert state not in ALLOWED[action] or (action, number) == ("feed", 0)
            else:
                assert action in ("submit", "steps") or state in ALLOWED[action]
                succeeded[action] += 1
        for _ in range(4):
            diary.step()
        diary.check()


def act(
    diary: Diary, action: str, number: int, stream: EngineStream | None, ids: list[int]
) -> None:
    """Do one action and write it down; a refusal is raised before anything is written."""
    engine = diary.engine
    if action == "submit":
        diary.read(engine.submit(ids, ENDLESS, retain=True), ids)
    elif action == "steps":
        for _ in range(number % 7):
            diary.step()
    elif stream is None:
        raise AssertionError(f"{action} needs a stream")
    elif action == "fork":
        diary.fork(stream, engine.fork(stream))
    elif action == "feed":
        engine.feed(stream, ids, ENDLESS)
        diary.read(stream, ids)
    elif action == "rewind":
        engine.rewind(stream, number % 8)
        diary.rewind(stream, number % 8)
    else:
        getattr(engine, action)(stream)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 16, 17, 90])
@pytest.mark.parametrize("cache", ["none", "int8"])
def test_a_prompt_of_any_length(length: int, cache: str) -> None:
    lm = tiny_lm()
    config = StreamConfig(3, 13, quantize_cache=cache, chunk_size=32)
    with Engine(lm, config, max_streams=2) as engine:
        diary = Diary(lm, engine)
        for seed in range(2):
            ids = tokens(length, seed)
            diary.read(engine.submit(ids, GenerationParams(30, ignore_eos=True)), ids)
        while engine.has_work:
            diary.step()
        diary.check()
        assert [sum(w) for w in diary.is_written.values()] == [30, 30]


def test_more_streams_than_places_wait_their_turn() -> None:
    lm = tiny_lm()
    with Engine(lm, CONFIG, max_streams=2) as engine:
        diary = Diary(lm, engine)
        streams = []
        for seed in range(7):
            ids = tokens(5 + 11 * seed, seed)
            streams.append(engine.submit(ids, GenerationParams(9, ignore_eos=True)))
            diary.read(streams[-1], ids)
        assert [s.state for s in streams] == ["reading"] * 2 + ["waiting"] * 5
        while engine.has_work:
            diary.step()
        diary.check()
        assert {s.finish_reason for s in streams} == {"length"}


# gptj and bloom have no decode step, deepseek's latent cache has none, gemma3 mixes two geometries.
@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma3", "gpt-oss", "gptj", "bloom", "mpt"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_families(name: str, dtype: torch.dtype) -> None:
    model = model_of(name, dtype)
    lm = LanguageModel(model, byte_tokenizer(), name, "test")
    config = StreamConfig(*FAMILIES[name].shapes[0], chunk_size=16)
    with Engine(lm, config, max_streams=3) as engine:
        assert (engine.batching_unsupported_reason is None) == (
            dtype is torch.float32 and name in ("llama", "qwen3", "gemma3", "gpt-oss")
        )
        diary = Diary(lm, engine)
        for seed, length in enumerate((1, 30, 7)):
            ids = tokens(length, seed, 60)
            diary.read(engine.submit(ids, GenerationParams(25, ignore_eos=True)), ids)
        while engine.has_work:
            diary.step()
        diary.check()


def test_logits_are_those_of_a_stream_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = tiny_lm()
    seen = logits_by_writer(monkeypatch)
    with Engine(lm, CONFIG, max_streams=3) as engine:
        prompts = {engine.submit(tokens(n, n), GenerationParams(20)): tokens(n, n) for n in (3, 50)}
        written = defaultdict(list)
        for event in engine.run():
            written[event.stream].append(event.token)
    for stream, prompt in prompts.items():
        ids = torch.tensor(prompt + written[stream])
        alone = Stream(lm.model, CONFIG).feed(ids)[len(prompt) - 1 : -1]
        torch.testing.assert_close(torch.stack(seen[stream.writer]), alone, rtol=0, atol=1e-4)


def logits_by_writer(monkeypatch: pytest.MonkeyPatch) -> dict[object, list[Tensor]]:
    """Listen to what tokens are chosen from."""
    seen: dict[object, list[Tensor]] = defaultdict(list)

    def listen(writers: list[object], logits: Tensor, *rest: object) -> object:
        for writer, row in zip(writers, logits, strict=True):
            seen[writer].append(row.clone())
        return choose_tokens(writers, logits, *rest)

    monkeypatch.setattr(scheduler, "choose_tokens", listen)
    return seen


def test_the_default_model(default_model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    config = StreamConfig(4, 60)
    seen = logits_by_writer(monkeypatch)
    texts = ("The", "The capital of France is Paris, and " * 12, "Once upon a time")
    params = GenerationParams(12, ignore_eos=True)
    with Engine(default_model, config, max_streams=3) as engine:
        streams = [engine.submit(text, params) for text in texts]
        written = defaultdict(list)
        for event in engine.run():
            written[event.stream].append(event.token)
    for stream, text in zip(streams, texts, strict=True):
        alone = Stream(default_model.model, config)
        prompt = default_model.encode(text)
        alone.feed(prompt, logits="none")
        assert written[stream] == list(alone.generate(12))
        ids = torch.cat((prompt, torch.tensor(written[stream])))
        logits = Stream(default_model.model, config).feed(ids)[len(prompt) - 1 : -1]
        torch.testing.assert_close(torch.stack(seen[stream.writer]), logits, rtol=1e-5, atol=1e-4)
