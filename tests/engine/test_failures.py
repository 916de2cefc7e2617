"""A stream that fails fails alone, and a step that fails can be done again."""

from __future__ import annotations

import pytest
from torch import Tensor, nan

from streamingllm import Engine, StreamConfig
from streamingllm.engine import StepOutput
from streamingllm.engine.model_runner import ModelRunner
from streamingllm.engine.stream import EngineStream
from streamingllm.errors import InputError
from streamingllm.graphs.decode_step import DecodeStep
from tests.engine.driver import free, run, start, tokens_of
from tests.reference.tiny_lm import tiny_lm

CONFIG = StreamConfig(num_sink_tokens=4, window_size=28, chunk_size=64, max_rewind_tokens=4)
BROKEN = list(range(150))  # prompt of a stream that fails


@pytest.mark.parametrize("where", ["pass", "logits"])
@pytest.mark.parametrize("when", ["first pass", "middle of the prompt"])
def test_a_stream_that_fails_fails_alone(
    monkeypatch: pytest.MonkeyPatch, where: str, when: str
) -> None:
    bad: list[int] = []
    prefill, can_step = ModelRunner.prefill, ModelRunner.can_step

    def break_one(self: ModelRunner, stream: EngineStream, num_tokens: int) -> Tensor:
        is_bad = stream.num_prompt_tokens == len(BROKEN)
        is_due = when == "first pass" or stream.num_seen_tokens > 0
        if not is_bad or not is_due:
            return prefill(self, stream, num_tokens)
        bad.append(stream.num_seen_tokens)
        if where == "pass":
            raise RuntimeError("out of luck")
        assert stream.slot is not None
        for buffers in stream.slot.cache.ring_buffers:
            buffers.k_cache.fill_(nan)
        return prefill(self, stream, num_tokens) * nan

    with Engine(tiny_lm(), CONFIG, max_streams=2, max_stall=50.0) as engine:
        alone = {
            text: tokens_of(list(run(engine)), stream_id)
            for text in ("xyz", "efg")
            for stream_id in [start(engine, text, free(30))]
        }
    monkeypatch.setattr(ModelRunner, "prefill", break_one)
    # Prompts have passes of their own, so that a pass can fail for one stream only.
    monkeypatch.setattr(
        ModelRunner,
        "can_step",
        lambda self, stream: len(stream.pending) == 1 and can_step(self, stream),
    )
    with Engine(tiny_lm(), CONFIG, max_streams=2, max_stall=50.0) as engine:
        first = start(engine, "xyz", free(30))
        broken = start(engine, BROKEN)
        after = start(engine, "efg", free(30))
        outputs = list(run(engine))
        (last,) = [o for o in outputs if o.stream_id == broken]
        assert last.finish_reason == "failed"
        if where == "pass":
            assert "luck" in str(last.error)
        else:
            assert "not finite" in str(last.error)
        with pytest.raises(InputError, match="is not open in this engine"):
            engine.state(broken)
    assert bad
    assert bad[0] == 0 if when == "first pass" else bad[0] >= 16
    assert tokens_of(outputs, first) == alone["xyz"]
    assert tokens_of(outputs, after) == alone["efg"]


def test_a_step_that_fails_can_be_done_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def write(fail_at: int) -> list[list[int]]:
        with Engine(tiny_lm(), CONFIG, max_streams=2) as engine:
            ids = [start(engine, prompt, free(20)) for prompt in ("abcdefgh", "xyz" * 20)]
            outputs: list[StepOutput] = []
            for number in range(100):
                with monkeypatch.context() as patched:
                    if number == fail_at:
                        patched.setattr(DecodeStep, "run", interrupt)
                        with pytest.raises(KeyboardInterrupt):
                            engine.step()
                        continue
                    outputs += engine.step()
        return [tokens_of(outputs, stream_id) for stream_id in ids]

    def interrupt(*args: object) -> Tensor:
        raise KeyboardInterrupt

    expected = write(fail_at=1000)
    assert [len(tokens) for tokens in expected] == [20, 20]
    assert write(fail_at=7) == expected


def test_the_streams_of_a_step_that_always_fails_can_be_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*args: object) -> Tensor:
        raise RuntimeError("broken machine")

    with Engine(tiny_lm(), CONFIG, max_streams=2) as engine:
        stream_id, idle = start(engine, "abcdefgh", free(20)), engine.open_stream()
        while engine.usage(stream_id).num_generated_tokens < 5:
            engine.step()
        with monkeypatch.context() as patched:
            patched.setattr(ModelRunner, "step", fail)
            with pytest.raises(RuntimeError, match="broken machine") as caught:
                engine.step()
        (last,) = engine.fail_active(caught.value)
        assert (last.stream_id, last.finish_reason) == (stream_id, "failed")
        assert last.error is caught.value
        assert engine.stream_ids == [idle]
        assert engine.stats().num_free_slots == 1
