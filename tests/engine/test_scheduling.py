"""A long prompt does not hold up streams that decode; orders, deadlines, states and counts."""

from __future__ import annotations

import threading

import pytest

from streamingllm import Engine, StreamConfig
from streamingllm.errors import InputError, RewindError
from tests.engine.driver import ENDLESS, Record, free, run, start, tokens_of
from tests.reference.tiny_lm import tiny_lm

CONFIG = StreamConfig(num_sink_tokens=4, window_size=28, chunk_size=64, max_rewind_tokens=4)


class Clock:
    """Seconds that pass when a test says so."""

    seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def num_seen(engine: Engine, stream_id: str) -> int:
    return engine.export_state(stream_id).num_seen_tokens


@pytest.mark.parametrize("max_stall", [1.0, 2.0, 50.0])
def test_streams_decode_in_every_step_while_prompts_are_prefilled(max_stall: float) -> None:
    with Engine(tiny_lm(), CONFIG, max_streams=4, max_stall=max_stall) as engine:
        decoding = [start(engine, "ab") for _ in range(2)]
        while not all(engine.usage(i).num_generated_tokens for i in decoding):
            engine.step()
        prompts = [start(engine, "long prompt " * 20, free(3)) for _ in range(2)]
        gained = steps = 0
        while any(engine.state(i) != "idle" for i in prompts):
            seen = [num_seen(engine, i) for i in prompts]
            outputs = engine.step()
            assert {o.stream_id for o in outputs if o.token_ids} >= {*decoding}
            gained += any(num_seen(engine, i) > n for i, n in zip(prompts, seen, strict=True))
            steps += 1
        # A step brings no prompt further only to measure one: once for each number of streams that
        # decode (2, 3 and 4), and once after 32 steps that a prompt joined. Time has no part in it.
        assert steps - gained <= 3 + steps // 32


def test_prompts_take_turns() -> None:
    with Engine(tiny_lm(), CONFIG, max_streams=3) as engine:
        ids = [start(engine, "long prompt " * 30) for _ in range(3)]
        for _ in range(3):
            engine.step()
        assert [num_seen(engine, i) for i in ids] == [64, 64, 64]


def test_a_lower_priority_number_goes_first() -> None:
    with Engine(tiny_lm(), CONFIG, max_streams=2) as engine:
        first = start(engine, "long prompt " * 30, free(1))
        late, urgent = (
            start(engine, "long prompt " * 20, free(1), priority=priority) for priority in (0, -1)
        )
        second = engine.open_stream(priority=-2)
        assert [engine.state(i) for i in (first, late, urgent, second)] == [
            "prefilling",
            "prefilling",
            "waiting",
            "waiting",
        ]
        engine.close_stream(first)
        assert [engine.state(i) for i in (late, urgent, second)] == [
            "prefilling",
            "waiting",
            "idle",
        ]
        engine.close_stream(second)
        assert [engine.state(i) for i in (late, urgent)] == ["prefilling", "prefilling"]
        ended = [o.stream_id for o in run(engine) if o.finish_reason == "length"]
        assert ended == [urgent, late]


def test_pause_and_abort() -> None:
    with Engine(tiny_lm(), CONFIG, max_streams=2) as engine:
        stream_id, other = (start(engine, text) for text in ("abc", "def"))
        for _ in range(5):
            engine.step()
        engine.pause(stream_id)
        generated = engine.usage(stream_id).num_generated_tokens
        assert engine.state(stream_id) == "paused"
        assert {o.stream_id for o in engine.step()} == {other}
        engine.pause(other)
        assert (engine.has_work, engine.step()) == (False, [])
        engine.resume(stream_id)
        engine.step()
        assert engine.usage(stream_id).num_generated_tokens == generated + 1
        engine.abort(stream_id)
        engine.abort(stream_id)
        (output,) = engine.step()
        assert (output.stream_id, output.token_ids) == (stream_id, ())
        assert output.finish_reason == "cancelled"
        assert engine.state(stream_id) == "idle"


def test_an_aborted_prompt_continues_where_it_stands() -> None:
    with Engine(tiny_lm(), CONFIG, max_streams=1) as engine:
        stream_id = start(engine, list(range(200)), free(5))
        engine.step()
        engine.abort(stream_id)
        assert [o.finish_reason for o in engine.step()] == ["cancelled"]
        assert num_seen(engine, stream_id) == 64
        engine.submit(stream_id, [], free(5))
        resumed = tokens_of(list(run(engine)), stream_id)
        alone = start(engine, list(range(200)), free(5))
        assert tokens_of(list(run(engine)), alone) == resumed


def test_a_waiting_stream_that_is_paused_lets_others_pass() -> None:
    with Engine(tiny_lm(), CONFIG, max_streams=1) as engine:
        first, second, third = (start(engine, "abc", free(3)) for _ in range(3))
        engine.pause(second)
        outputs = list(run(engine))
        assert [o.stream_id for o in outputs if o.finish_reason == "length"] == [first, third]
        assert engine.state(second) == "paused"
        engine.resume(second)
        engine.close_stream(second)
        assert [o.finish_reason for o in engine.step()] == ["cancelled"]
        assert engine.stream_ids == []


def test_deadlines_end_texts_while_they_wait_prefill_decode_or_pause() -> None:
    clock = Clock()
    with Engine(tiny_lm(), CONFIG, max_streams=3, clock=clock) as engine:
        decoding = start(engine, "ab", deadline=5.0)
        while not engine.usage(decoding).num_generated_tokens:
            engine.step()
        prompt = start(engine, "long prompt " * 30, deadline=6.0)
        paused = start(engine, "abc", deadline=7.0)
        engine.pause(paused)
        waiting = start(engine, "abc", deadline=1.0)
        endless = start(engine, "abc")
        states = [engine.state(i) for i in (decoding, prompt, paused, waiting, endless)]
        assert states == ["decoding", "prefilling", "paused", "waiting", "waiting"]
        remaining = [engine.seconds_to_deadline]
        ended = []
        for _ in range(8):
            ended += [o.stream_id for o in engine.step() if o.finish_reason == "deadline"]
            clock.seconds += 1.0
        assert ended == [waiting, decoding, prompt, paused]
        assert [*remaining, engine.seconds_to_deadline] == [1.0, None]
        assert engine.state(prompt) == "idle"
        with pytest.raises(InputError, match=r"deadline=-1\.0"):
            engine.submit(prompt, [1], ENDLESS, deadline=-1.0)


def test_one_prompt_prefilled_once_and_answered_in_many_ways() -> None:
    with Engine(tiny_lm(), CONFIG, max_streams=4) as engine:
        prompt = start(engine, "a common beginning", free(0))
        (last,) = list(run(engine, close=False))
        assert (last.token_ids, last.finish_reason) == ((), "length")
        answers = [engine.fork(prompt) for _ in range(2)]
        for stream_id in answers:
            engine.submit(stream_id, [], free(9))
        answers.append(start(engine, "a common beginning", free(9)))
        outputs = list(run(engine, close=False))
        first, second, alone = (tokens_of(outputs, i) for i in answers)
        assert first == second == alone
        assert len(alone) == 9
        engine.submit(prompt, [], free(2))
        assert len(list(run(engine))) == 2


def test_usage_counts_prompt_generated_cached_and_evicted_tokens() -> None:
    with Engine(tiny_lm(), CONFIG, max_streams=1) as engine:
        stream_id = start(engine, list(range(100)), free(10))
        *_, last = list(run(engine, close=False))
        usage = last.usage
        assert (usage.num_prompt_tokens, usage.num_generated_tokens) == (100, 10)
        # The last token is pending; sinks and window are full.
        assert usage.num_cached_tokens == 32
        assert usage.num_evicted_tokens == 109 - 32
        engine.submit(stream_id, [1, 2, 3], free(2))
        *_, last = list(run(engine))
        assert (last.usage.num_prompt_tokens, last.usage.num_generated_tokens) == (3, 2)


@pytest.mark.parametrize("prompt", [[], [257], [-1], [1.0], [True], ["a"]])
def test_a_prompt_that_cannot_be(prompt: object) -> None:
    with Engine(tiny_lm(), CONFIG, max_streams=1) as engine:
        stream_id = engine.open_stream()
        with pytest.raises(InputError, match=r"^token_ids "):
            engine.submit(stream_id, prompt)


def test_actions_name_the_state_they_need() -> None:
    with Engine(tiny_lm(), CONFIG, max_streams=1) as engine:
        stream_id = start(engine, "abc", free(2))
        with pytest.raises(InputError, match=f"stream_id={stream_id} is prefilling; wait"):
            engine.submit(stream_id, [1])
        with pytest.raises(InputError, match=r"rewind: .* is prefilling; it must be idle"):
            engine.rewind(stream_id, 1)
        list(run(engine, close=False))
        with pytest.raises(InputError, match=r"pause: .* is idle"):
            engine.pause(stream_id)
        waiting = engine.open_stream()
        with pytest.raises(InputError, match=r"fork: .* is waiting"):
            engine.fork(waiting)


def test_ids_of_other_engines_and_of_closed_streams_are_refused() -> None:
    with (
        Engine(tiny_lm(), CONFIG, max_streams=1) as engine,
        Engine(tiny_lm(), CONFIG, max_streams=1) as other,
    ):
        stream_id, strange = engine.open_stream(), other.open_stream()
        for call in (engine.fork, engine.abort, engine.close_stream, engine.export_state):
            with pytest.raises(InputError, match=f"stream_id='{strange}' is not open"):
                call(strange)
        engine.close_stream(stream_id)
        with pytest.raises(InputError, match=f"stream_id='{stream_id}' is not open"):
            engine.submit(stream_id, [1])


def test_an_engine_belongs_to_the_first_thread_that_steps() -> None:
    with Engine(tiny_lm(), CONFIG, max_streams=1) as engine:
        opened: list[str] = []
        thread = threading.Thread(target=lambda: opened.append(engine.open_stream()))
        thread.start()
        thread.join()
        engine.step()
        refused: list[str] = []

        def call() -> None:
            for command in (engine.step, lambda: engine.submit(opened[0], [1]), engine.stats):
                try:
                    command()
                except InputError as error:
                    refused.append(str(error))

        thread = threading.Thread(target=call, name="another")
        thread.start()
        thread.join()
        assert len(refused) == 3
        assert all("thread='another'" in message for message in refused)


def test_a_rewind_that_is_refused_changes_nothing() -> None:
    with Engine(tiny_lm(), CONFIG, max_streams=1) as engine:
        record = Record(engine)
        stream_id = record.start(list(range(60)), free(9))
        record.take(list(run(engine, close=False)))
        num_refused = 0
        # One token at a time to the end of the rewind buffer, and on.
        for _ in range(2 * CONFIG.max_rewind_tokens):
            before = engine.export_state(stream_id)
            try:
                engine.rewind(stream_id, 1)
            except RewindError:
                num_refused += 1
                after = engine.export_state(stream_id)
                assert (after.pending, after.token_tail) == (before.pending, before.token_tail)
            else:
                record.rewind(stream_id, 1)
        assert 0 < num_refused < 2 * CONFIG.max_rewind_tokens
        engine.submit(stream_id, [5], free(12))
        record.read(stream_id, [5])
        record.take(list(run(engine, close=False)))
        record.check()
