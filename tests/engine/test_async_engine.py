"""An engine for event loops: readers, commands, ends."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
from torch import Tensor

from streamingllm import AsyncEngine, Engine, Grammar, SamplingParams, StreamConfig
from streamingllm.engine import StepOutput, StreamState
from streamingllm.engine.model_runner import ModelRunner
from streamingllm.errors import CapacityError, ConfigError, InputError
from tests.engine.driver import ENDLESS, free, run, start, tokens_of
from tests.reference.tiny_lm import tiny_lm

CONFIG = StreamConfig(num_sink_tokens=4, window_size=28, chunk_size=64, max_rewind_tokens=4)
TIMEOUT = 60.0  # of a test that waits for ever

Test = Callable[[], Coroutine[Any, Any, None]]


def in_a_loop(test: Test) -> Callable[[], None]:
    def run_test() -> None:
        asyncio.run(asyncio.wait_for(test(), TIMEOUT))

    run_test.__name__ = test.__name__
    return run_test


@asynccontextmanager
async def serving(max_streams: int = 2, **options: Any) -> AsyncIterator[AsyncEngine]:
    buffered = options.pop("max_buffered_outputs", 64)
    engine = Engine(tiny_lm(), CONFIG, max_streams=max_streams, **options)
    async with AsyncEngine(engine, max_buffered_outputs=buffered) as served:
        yield served


def alone(prompt: str, num_tokens: int) -> list[int]:
    with Engine(tiny_lm(), CONFIG, max_streams=1) as engine:
        stream_id = start(engine, prompt, free(num_tokens))
        return tokens_of(list(run(engine)), stream_id)


async def read(outputs: AsyncIterator[StepOutput]) -> list[int]:
    return [token async for output in outputs for token in output.token_ids]


@in_a_loop
async def test_streams_together_get_the_tokens_they_get_alone() -> None:
    async with serving() as engine:
        prompts = ["abc", "long prompt " * 20, "efg"]

        async def answer(prompt: str) -> list[int]:
            stream_id = await engine.open_stream()
            tokens = await read(engine.generate(stream_id, prompt, free(20)))
            await engine.close_stream(stream_id)
            return tokens

        assert await asyncio.gather(*map(answer, prompts)) == [alone(p, 20) for p in prompts]
        stats = await engine.stats()
        assert stats.num_free_slots == 2
        assert stats.num_generated_tokens == 60


@in_a_loop
async def test_a_slow_reader_stops_its_own_stream_only() -> None:
    async with serving(max_buffered_outputs=4) as engine:
        slow, fast = await engine.open_stream(), await engine.open_stream()
        outputs = engine.generate(slow, "abc", free(40))
        first = await anext(outputs)
        assert len(await read(engine.generate(fast, "efg", free(100)))) == 100
        assert (await engine.export_state(slow)).num_seen_tokens <= 3 + 6
        assert (await engine.stats()).num_streams == {"paused": 1, "idle": 1}
        assert [*first.token_ids, *await read(outputs)] == alone("abc", 40)


@in_a_loop
async def test_closing_an_iterator_aborts() -> None:
    async with serving(max_streams=1) as engine:
        stream_id = await engine.open_stream()
        outputs = engine.generate(stream_id, "abc", ENDLESS)
        await anext(outputs)
        await outputs.aclose()
        # The next text begins at once, and does not get the last output of the one before.
        later = [o async for o in engine.generate(stream_id, [1, 2], free(3))]
        assert [o.finish_reason for o in later] == [None, None, "length"]
        assert (await engine.stats()).num_streams == {"idle": 1}


@in_a_loop
async def test_cancelling_a_task_aborts_in_the_middle_of_a_prompt() -> None:
    async with serving(max_streams=1) as engine:
        stream_id = await engine.open_stream()
        prompt = list(range(250)) * 400
        task = asyncio.create_task(read(engine.generate(stream_id, prompt, free(1))))
        while not (seen := (await engine.export_state(stream_id)).num_seen_tokens):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await engine.stats()).num_streams == {"idle": 1}
        state = await engine.export_state(stream_id)
        assert 0 < seen <= state.num_seen_tokens < len(prompt)
        assert state.finish_reason == "cancelled"


@in_a_loop
async def test_close_gives_every_reader_a_last_output_and_refuses_the_rest() -> None:
    engine = AsyncEngine(Engine(tiny_lm(), CONFIG, max_streams=1))
    ids = [await engine.open_stream() for _ in range(2)]
    tasks = [
        asyncio.create_task(collect(engine.generate(stream_id, "abc", ENDLESS)))
        for stream_id in ids
    ]
    while (await engine.stats()).num_generated_tokens < 5:
        await asyncio.sleep(0)
    await engine.close()
    for outputs in await asyncio.gather(*tasks):
        assert outputs[-1].finish_reason == "cancelled"
    with pytest.raises(InputError, match="engine is closed"):
        await engine.open_stream()
    await engine.close()


async def collect(outputs: AsyncIterator[StepOutput]) -> list[StepOutput]:
    return [output async for output in outputs]


def test_a_step_that_fails_fails_its_streams_not_the_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    step = ModelRunner.step

    def fail_once(self: ModelRunner, *args: Any) -> Tensor:
        if steps.pop() == "fails":
            raise RuntimeError("broken machine")
        return step(self, *args)

    steps = ["works"] * 1000 + ["fails"] + ["works"] * 3

    @in_a_loop
    async def check() -> None:
        async with serving() as engine:
            stream_id, other = await engine.open_stream(), await engine.open_stream()
            outputs = await collect(engine.generate(stream_id, "abcdef", ENDLESS))
            assert outputs[-1].finish_reason == "failed"
            assert "broken machine" in str(outputs[-1].error)
            assert len(await read(engine.generate(other, "abcdef", free(5)))) == 5
            with pytest.raises(InputError, match="is not open"):
                await engine.close_stream(stream_id)

    monkeypatch.setattr(ModelRunner, "step", fail_once)
    check()


@in_a_loop
async def test_a_deadline_wakes_a_stream_that_waits_behind_idle_ones() -> None:
    async with serving(max_streams=1) as engine:
        await engine.open_stream()
        waiting = await engine.open_stream()
        outputs = await collect(engine.generate(waiting, "abc", ENDLESS, deadline=0.01))
        assert [o.finish_reason for o in outputs] == ["deadline"]


@in_a_loop
async def test_samples_and_grammars() -> None:
    async with serving() as engine:
        stream_id = await engine.open_stream()
        params = free(8, temperature=1.0, seed=1, n=3)
        outputs = await collect(engine.generate(stream_id, "abc", params))
        assert sorted(o.sample_index for o in outputs if o.finish_reason) == [0, 1, 2]
        grammar = SamplingParams(grammar=Grammar.regex("[ab]{5}"))
        text = "".join([o.text async for o in engine.generate(stream_id, "x", grammar)])
        assert len(text) == 5
        with pytest.raises(InputError, match="no valid regex"):
            wrong = SamplingParams(grammar=Grammar.regex("("))
            await read(engine.generate(stream_id, "x", wrong))


@in_a_loop
async def test_states_and_forks_continue_their_texts() -> None:
    async with serving(max_streams=3) as engine:
        stream_id = await engine.open_stream()
        outputs = engine.generate(stream_id, "abc", free(30, temperature=1.0, seed=4))
        done = [token for _ in range(7) for token in (await anext(outputs)).token_ids]
        fork = await engine.fork(stream_id)
        data = (await engine.export_state(fork)).to_bytes()
        copy = await engine.open_stream(state=StreamState.from_bytes(data))
        rest = await read(outputs)
        assert len(done) + len(rest) == 30
        for other in (fork, copy):
            found = await read(engine.continue_text(other))
            assert found == rest[len(rest) - len(found) :]
            assert found
        with pytest.raises(InputError, match="generates nothing"):
            await read(engine.continue_text(fork))
        await engine.rewind(fork, 3)
        await engine.mark_turn(fork)


@in_a_loop
async def test_what_is_refused_is_raised_in_the_caller() -> None:
    async with serving(max_streams=1, max_waiting=0) as engine:
        stream_id = await engine.open_stream()
        with pytest.raises(CapacityError, match="max_waiting=0"):
            await engine.open_stream()
        with pytest.raises(InputError, match="token_ids contains 999"):
            await read(engine.generate(stream_id, [999]))
        with pytest.raises(InputError, match="is not open"):
            await read(engine.generate("nobody", "abc"))
    with (
        Engine(tiny_lm(), CONFIG, max_streams=1) as synchronous,
        pytest.raises(ConfigError, match="max_buffered_outputs=0"),
    ):
        AsyncEngine(synchronous, max_buffered_outputs=0)


def test_several_event_loops_share_an_engine() -> None:
    expected = alone("abc", 25)
    found: list[list[int]] = []
    engine = AsyncEngine(Engine(tiny_lm(), CONFIG, max_streams=2))

    async def answer() -> None:
        stream_id = await engine.open_stream()
        found.append(await read(engine.generate(stream_id, "abc", free(25))))
        await engine.close_stream(stream_id)

    threads = [threading.Thread(target=in_a_loop(answer)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    asyncio.run(engine.close())
    assert found == [expected] * 4
