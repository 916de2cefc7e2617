"""A long prompt does not hold up those who write, and what fails fails alone."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from streamingllm import Engine, GenerationParams, StreamConfig
from streamingllm.engine import EngineStream
from streamingllm.engine.model_runner import ModelRunner
from streamingllm.engine.prefill_budget import Ladder, Pace, Reading
from streamingllm.errors import InputError
from streamingllm.graphs.decode_step import DecodeStep
from tests.reference.tiny_lm import tiny_lm

CONFIG = StreamConfig(num_sink_tokens=4, window_size=28, chunk_size=64, max_rewind_tokens=4)
ENDLESS = GenerationParams(None, ignore_eos=True)


def test_a_ladder_is_climbed_as_far_as_time_allows() -> None:
    ladder = Ladder((16, 32, 64, 128, 256))
    sizes = []
    for _ in range(20):
        sizes.append(ladder.largest(0.024))
        ladder.measured(sizes[-1], 0.005 + sizes[-1] * 1e-4)
    assert sizes[:4] == [16, 32, 64, 128]  # 256 tokens would take 30.6 ms
    assert set(sizes[4:]) == {128}


def test_what_an_accident_spoilt_is_tried_again() -> None:
    ladder = Ladder((16, 32))
    ladder.measured(ladder.largest(0.01), 0.02)
    assert ladder.largest(0.01) == 0
    assert Counter(ladder.largest(0.01) for _ in range(200))[16] > 0


@dataclass
class Machine:
    """What steps take, in seconds."""

    step: float
    per_token_along: float
    per_chunk: float
    per_token: float

    def read(self, pace: Pace, num_writing: int = 8) -> tuple[Reading, float]:
        """Do one step and return how long it took."""
        reading = pace.next(num_writing, can_go_along=True)
        if reading.how == "along":
            seconds = self.step + reading.num_tokens * self.per_token_along
            pace.stepped(num_writing, seconds, reading.num_tokens)
            return reading, seconds
        seconds = self.per_chunk + reading.num_tokens * self.per_token
        pace.stepped(num_writing, self.step)
        pace.read(reading.num_tokens, seconds)
        return reading, self.step + seconds


@pytest.mark.parametrize(
    ("machine", "best"),
    [
        (Machine(0.010, 0.0004, 0.015, 0.0003), Reading("along", 16)),
        (Machine(0.030, 0.0020, 0.010, 0.0001), Reading("chunk", 128)),
        (Machine(0.010, 0.0200, 0.015, 0.0003), Reading("along", 1)),
    ],
)
def test_the_better_way_to_read_is_found(machine: Machine, best: Reading) -> None:
    pace = Pace(chunk_size=512, max_stall=2.0)
    steps = [machine.read(pace) for _ in range(1000)]
    (found, _), *_ = Counter(reading for reading, _ in steps).most_common()
    assert found == best
    if best.num_tokens > 1:
        assert sorted(seconds for _, seconds in steps)[950] <= 2 * machine.step
    at_once = pace.next(0, can_go_along=True)
    assert at_once == Reading("chunk", 512)


def test_no_more_goes_along_than_a_step_takes() -> None:
    pace, machine = Pace(512, 2.0, most_along=1), Machine(0.010, 0.0004, 0.005, 0.0001)
    readings = [machine.read(pace)[0] for _ in range(1000)]
    assert {r.num_tokens for r in readings if r.how == "along"} == {0, 1}
    (best, _), *_ = Counter(readings).most_common()
    assert best == Reading("chunk", 16)


def test_no_time_at_all() -> None:
    pace, machine = Pace(chunk_size=64, max_stall=1.0), Machine(0.01, 0.001, 0.01, 0.001)
    readings = Counter(machine.read(pace)[0] for _ in range(100))
    assert readings[Reading("along", 1)] > 90


@pytest.mark.parametrize("max_stall", [1.0, 2.0, 50.0])
def test_those_who_write_go_on_while_prompts_are_read(max_stall: float) -> None:
    with Engine(tiny_lm(), CONFIG, max_streams=4, max_stall=max_stall) as engine:
        writing = [engine.submit("ab", ENDLESS) for _ in range(2)]
        while not all(stream.num_written_tokens for stream in writing):
            engine.step()
        reading = [engine.submit("long prompt " * 20, GenerationParams(3)) for _ in range(2)]
        gained = steps = 0
        while any(stream.finish_reason is None for stream in reading):
            seen = {stream: stream.num_seen_tokens for stream in reading}
            events = engine.step()
            assert {e.stream for e in events if e.token is not None} >= set(writing)
            gained += any(stream.num_seen_tokens > seen[stream] for stream in reading)
            steps += 1
        assert gained >= 0.9 * steps


def test_prompts_take_turns() -> None:
    with Engine(tiny_lm(), CONFIG, max_streams=3) as engine:
        streams = [engine.submit("long prompt " * 30, ENDLESS) for _ in range(3)]
        for _ in range(3):
            engine.step()
        assert [stream.num_seen_tokens for stream in streams] == [64, 64, 64]


@pytest.mark.parametrize("where", ["pass", "logits"])
def test_a_stream_that_fails_fails_alone(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    bad: list[EngineStream] = []
    read = ModelRunner.prefill

    def break_one(self: ModelRunner, stream: EngineStream, num_tokens: int) -> Tensor:
        if stream not in bad:
            return read(self, stream, num_tokens)
        if where == "pass":
            raise RuntimeError("out of luck")
        assert stream.slot is not None
        for buffers in stream.slot.cache.ring_buffers:
            buffers.k_cache.fill_(torch.nan)
        return read(self, stream, num_tokens) * torch.nan

    monkeypatch.setattr(ModelRunner, "prefill", break_one)

    def write() -> dict[str, list[int | None]]:
        with Engine(tiny_lm(), CONFIG, max_streams=2) as engine:
            first = engine.submit("abc", GenerationParams(30, ignore_eos=True))
            engine.step()
            bad.append(engine.submit("bad", ENDLESS, retain=True))
            after = engine.submit("efg", GenerationParams(30, ignore_eos=True))
            events = list(engine.run())
            assert bad[0].state == "finished"
            assert bad[0].finish_reason == "failed"
            assert ("luck" if where == "pass" else "not finite") in str(bad[0].error)
            return {
                name: [e.token for e in events if e.stream is stream]
                for name, stream in (("first", first), ("after", after))
            }

    broken = write()
    assert len(broken["after"]) == 30
    with Engine(tiny_lm(), CONFIG, max_streams=1) as engine:
        alone = engine.submit("efg", GenerationParams(30, ignore_eos=True))
        assert broken["after"] == [e.token for e in engine.run() if e.stream is alone]


def test_a_step_that_fails_can_be_done_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def write(fail_at: int) -> list[list[int | None]]:
        with Engine(tiny_lm(), CONFIG, max_streams=2) as engine:
            params = GenerationParams(20, ignore_eos=True)
            tokens: dict[EngineStream, list[int | None]] = {
                engine.submit(prompt, params): [] for prompt in ("abcdefgh", "xyz" * 20)
            }
            for number in range(100):
                with monkeypatch.context() as patched:
                    if number == fail_at:
                        patched.setattr(DecodeStep, "run", interrupt)
                        with pytest.raises(KeyboardInterrupt):
                            engine.step()
                        continue
                    for event in engine.step():
                        tokens[event.stream].append(event.token)
        return list(tokens.values())

    def interrupt(*args: object) -> Tensor:
        raise KeyboardInterrupt

    assert write(fail_at=7) == write(fail_at=1000)


def test_pause_and_cancel() -> None:
    with Engine(tiny_lm(), CONFIG, max_streams=2) as engine:
        stream, other = (engine.submit(text, ENDLESS) for text in ("abc", "def"))
        for _ in range(5):
            engine.step()
        engine.pause(stream)
        written = stream.num_written_tokens
        assert stream.state == "paused"
        assert {event.stream for event in engine.step()} == {other}
        engine.pause(other)
        assert not engine.has_work
        assert engine.step() == []
        engine.resume(stream)
        engine.step()
        assert stream.num_written_tokens == written + 1
        engine.cancel(stream)
        engine.cancel(stream)
        (event,) = engine.step()
        assert (event.stream, event.token, event.finish_reason) == (stream, None, "cancelled")
        assert stream not in engine.streams


def test_a_waiting_stream_that_rests_lets_others_pass() -> None:
    with Engine(tiny_lm(), CONFIG, max_streams=1) as engine:
        first, second, third = (engine.submit("abc", GenerationParams(3)) for _ in range(3))
        engine.pause(second)
        list(engine.run())
        assert [s.state for s in (first, second, third)] == ["finished", "paused", "finished"]
        engine.resume(second)
        engine.cancel(second)
        assert second.state == "finished"
        assert engine.streams == []


def test_one_prompt_read_once_and_answered_in_many_ways() -> None:
    with Engine(tiny_lm(), CONFIG, max_streams=4) as engine:
        prompt = engine.submit("a common beginning", GenerationParams(0), retain=True)
        list(engine.run())
        assert prompt.state == "idle"
        answers = [engine.fork(prompt, GenerationParams(9)) for _ in range(2)]
        answers.append(engine.submit("a common beginning", GenerationParams(9)))
        tokens: dict[EngineStream, list[int | None]] = {s: [] for s in answers}
        for event in engine.run():
            tokens[event.stream].append(event.token)
        assert [s.state for s in answers] == ["idle", "idle", "finished"]
        first, second, alone = tokens.values()
        assert first == second == alone
        engine.feed(prompt)
        assert len(list(engine.run())) > 0


@pytest.mark.parametrize("prompt", ["", [], torch.zeros(2, 2, dtype=torch.int64), [257], [-1]])
def test_a_prompt_that_cannot_be(prompt: object) -> None:
    with Engine(tiny_lm(), CONFIG, max_streams=1) as engine, pytest.raises(InputError):
        engine.submit(prompt)


def test_what_a_stream_is_not_in_the_state_for() -> None:
    with Engine(tiny_lm(), CONFIG, max_streams=1) as engine:
        stream = engine.submit("abc", GenerationParams(2))
        with pytest.raises(InputError, match="feed: stream 1 is reading; must be idle"):
            engine.feed(stream, "x")
        with pytest.raises(InputError, match="release: stream 1"):
            engine.release(stream)
        list(engine.run())
        with pytest.raises(InputError, match="pause: stream 1 is finished"):
            engine.pause(stream)
        with pytest.raises(InputError, match="fork: stream 1 is finished"):
            engine.fork(stream)


def test_other_threads_come_between_steps() -> None:
    with Engine(tiny_lm(), CONFIG, max_streams=4, max_waiting=100) as engine:
        engine.submit("never ends", ENDLESS)
        streams: list[EngineStream] = []

        def submit() -> None:
            for number in range(5):
                streams.append(engine.submit("abc" * (number + 1), GenerationParams(4)))
                if number == 3:
                    engine.cancel(streams[-1])

        threads = [threading.Thread(target=submit) for _ in range(3)]
        for thread in threads:
            thread.start()
        for _ in range(3000):
            engine.step()
            if len(streams) == 15 and all(s.finish_reason for s in streams):
                break
        for thread in threads:
            thread.join()
        assert Counter(s.state for s in streams) == {"finished": 15}


def test_waiting_for_work() -> None:
    with Engine(tiny_lm(), CONFIG, max_streams=1) as engine:
        assert not engine.wait(0.01)
        timer = threading.Timer(0.05, engine.submit, ["abc"])
        timer.start()
        assert engine.wait(10)
        timer.join()
        assert engine.has_work
