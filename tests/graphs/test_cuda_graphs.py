"""Steps that are captured: each token is written once, and nothing else changes.

With a GPU these are CUDA graphs; without one, what would be captured is run again.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from streamingllm import Engine, LanguageModel, SamplingParams, Stream, StreamConfig
from streamingllm.graphs import cuda_graphs, decode_step
from streamingllm.graphs.cuda_graphs import CapturedSteps, CudaRecorder, Graph
from streamingllm.graphs.decode_step import DecodeStep, StepToken
from streamingllm.kernels import gpu, native
from tests.graphs.rerun import Diary, Rerun
from tests.reference.rounding import assert_rounded_alike
from tests.reference.streams import decode_step_of
from tests.reference.tiny_lm import tiny_lm

# Inductor imports what torch itself has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:.*script_method.*deprecated:DeprecationWarning")

CLOSE = {"rtol": 1e-4, "atol": 1e-4}
CONFIG = StreamConfig(num_sink_tokens=3, window_size=9, max_rewind_tokens=6, chunk_size=16)
NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=NEEDS_GPU)])
def device(request: pytest.FixtureRequest) -> torch.device:
    if request.param == "cpu" and not native.load():
        pytest.skip("needs a C++ compiler and a processor with AVX2")
    if request.param == "cuda" and not gpu.load():
        pytest.skip("needs triton")
    return torch.device(request.param)


@pytest.fixture
def lm(device: torch.device) -> LanguageModel:
    if device.type == "cpu":
        return tiny_lm()
    there = tiny_lm.__wrapped__()
    there.model.to(device)
    return there


@pytest.fixture
def diary(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> Diary:
    """Let all steps made from now on be captured, and tell what happens."""
    found = Diary(Rerun() if device.type == "cpu" else CudaRecorder(device))
    monkeypatch.setattr(decode_step, "_capturing", lambda device: CapturedSteps(found, device))
    return found


def tokens(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 257, shape, generator=torch.Generator().manual_seed(seed))


def feed(stream: Stream, ids: Tensor) -> Tensor:
    return stream.feed(ids.to(stream.model.device))


def stream_of(lm: LanguageModel, ids: Tensor, config: StreamConfig = CONFIG) -> Stream:
    stream = Stream(lm.model, config)
    feed(stream, ids)
    return stream


def steps_of(stream: Stream, ids: Tensor) -> Tensor:
    """Feed ids [..., seq] one by one."""
    return torch.cat([feed(stream, part) for part in ids.split(1, dim=-1)], dim=-2)


@pytest.mark.parametrize("shape", [(), (3,)])
@pytest.mark.parametrize("cache", ["none", "int8"])
def test_a_step_runs_is_captured_and_is_replayed(
    lm: LanguageModel, diary: Diary, shape: tuple[int, ...], cache: str
) -> None:
    config = StreamConfig(3, 9, max_rewind_tokens=6, quantize_cache=cache)
    ids, more = tokens(*shape, 14), tokens(*shape, 40, seed=1)
    stream = stream_of(lm, ids, config)
    found = steps_of(stream, more)
    assert diary.entries == ["run", "capture", *["replay"] * 39]
    assert stream.is_captured
    expected = feed(stream_of(lm, ids, config), more)
    if cache == "none":
        torch.testing.assert_close(found, expected, **CLOSE)
    else:
        lost = replace(config, window_size=config.window_size - 1)
        assert_rounded_alike(found, expected, feed(stream_of(lm, ids, lost), more))


def test_captured_steps_are_those_that_are_not(
    lm: LanguageModel, device: torch.device, diary: Diary, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = stream_of(lm, tokens(14))
    found = steps_of(stream, tokens(40, seed=1))
    monkeypatch.setattr(decode_step, "_capturing", lambda device: None)
    other = stream_of(lm, tokens(14))
    expected = steps_of(other, tokens(40, seed=1))
    assert not other.is_captured
    torch.testing.assert_close(found, expected, **CLOSE)


def test_streams_of_different_lengths_share_a_graph(lm: LanguageModel, diary: Diary) -> None:
    ids, more = tokens(3, 40), tokens(3, 9, seed=1)
    mask = torch.ones(3, 40, dtype=torch.int64)
    mask[0, :11], mask[1, :33] = 0, 0
    together = Stream(lm.model, CONFIG)
    together.feed(ids.to(lm.model.device), attention_mask=mask.to(lm.model.device))
    found = steps_of(together, more)
    assert diary.entries.count("capture") == 1
    for row, first in enumerate((11, 33, 0)):
        expected = feed(stream_of(lm, ids[row, first:]), more[row])
        torch.testing.assert_close(found[row], expected, **CLOSE)


def test_logits_outlive_the_next_step(lm: LanguageModel, diary: Diary) -> None:
    stream = stream_of(lm, tokens(14))
    found = [feed(stream, token) for token in tokens(5, seed=1).split(1)]
    kept = [logits.clone() for logits in found]
    steps_of(stream, tokens(5, seed=2))
    for logits, expected in zip(found, kept, strict=True):
        assert torch.equal(logits, expected)


def test_other_rings_have_another_graph(lm: LanguageModel, diary: Diary) -> None:
    more = tokens(12, seed=1)
    stream = stream_of(lm, tokens(14))
    steps_of(stream, more)
    fork = stream.fork()
    diary.entries.clear()
    found = steps_of(fork, tokens(12, seed=2))
    assert diary.entries == ["run", "capture", *["replay"] * 11]
    expected = steps_of(stream, tokens(12, seed=3))
    assert diary.entries[13:] == ["replay"] * 12
    fresh = stream_of(lm, tokens(14))
    feed(fresh, more)
    torch.testing.assert_close(found, feed(fresh.fork(), tokens(12, seed=2)), **CLOSE)
    torch.testing.assert_close(expected, feed(fresh, tokens(12, seed=3)), **CLOSE)


@pytest.mark.parametrize("num_steps", [1, 2, 3, 6])
def test_captured_steps_can_be_taken_back(lm: LanguageModel, diary: Diary, num_steps: int) -> None:
    stream, fresh = stream_of(lm, tokens(40)), stream_of(lm, tokens(40))
    steps_of(stream, tokens(num_steps, seed=2))
    stream.rewind(num_steps)
    assert diary.entries.count("run") + diary.entries.count("replay") == num_steps + 1
    torch.testing.assert_close(stream.next_logits, fresh.next_logits, **CLOSE)
    more = tokens(20, seed=1)
    torch.testing.assert_close(steps_of(stream, more), feed(fresh, more), **CLOSE)


def test_graphs_that_were_not_used_for_long_are_dropped(
    lm: LanguageModel, diary: Diary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda_graphs, "MOST_GRAPHS", 2)
    more = tokens(3, seed=1)
    first = stream_of(lm, tokens(14))
    steps_of(first, tokens(1))  # only then do its forks share the step
    streams = [first, first.fork(), first.fork()]
    for stream in streams:
        steps_of(stream, more)
    decoding = decode_step_of(first)
    assert decoding.num_graphs == 2
    diary.entries.clear()
    steps_of(streams[1], more)
    steps_of(streams[2], more)
    assert diary.entries == ["replay"] * 6
    assert len(_pools(decoding)) == 1
    found = steps_of(first, more)
    assert diary.entries[6:] == ["run", "capture", "replay", "replay"]
    assert decoding.num_graphs == 2
    assert len(_pools(decoding)) == 1
    fresh = stream_of(lm, tokens(14))
    feed(fresh, torch.cat((tokens(1), more)))
    torch.testing.assert_close(found, feed(fresh, more), **CLOSE)


def _pools(decoding: DecodeStep) -> set[object]:
    assert decoding._captured is not None
    kinds = decoding._captured._kinds.values()
    return {kind.graph.pool for kind in kinds if kind.graph is not None}


def test_what_cannot_be_captured_goes_on_as_it_is(
    lm: LanguageModel, diary: Diary, caplog: pytest.LogCaptureFixture
) -> None:
    handle = lm.model.model.layers[1].mlp.register_forward_hook(_ask_the_host)
    ids, more = tokens(40), tokens(12, seed=1)
    stream, fresh = stream_of(lm, ids), stream_of(lm, ids)
    if lm.model.device.type == "cpu":
        diary._recorder = _Failing()
    try:
        with caplog.at_level(logging.WARNING, logger="streamingllm"):
            found = steps_of(stream, more[:6])
        stream.rewind(6)  # each token was written once
        torch.testing.assert_close(found, feed(fresh.fork(), more[:6]), **CLOSE)
        torch.testing.assert_close(steps_of(stream, more), feed(fresh, more), **CLOSE)
    finally:
        handle.remove()
    assert diary.entries == ["run", "capture"]
    assert not stream.is_captured
    assert caplog.text.count("decode steps are not captured") == 1


def _ask_the_host(module: nn.Module, args: object, out: Tensor) -> None:
    assert float(out.sum()) == float(out.sum())


class _Failing(Rerun):
    def capture(self, step: Callable[[], Tensor], pool: Any) -> Graph:
        raise RuntimeError("operation not permitted when stream is capturing\nand more")


@pytest.mark.parametrize("shape", [(), (3,)])
def test_compiled_steps_are_captured_anew(
    lm: LanguageModel, diary: Diary, shape: tuple[int, ...]
) -> None:
    ids, more = tokens(*shape, 14), tokens(*shape, 20, seed=1)
    stream, fresh = stream_of(lm, ids), stream_of(lm, ids)
    before = steps_of(stream, more[..., :3])
    assert not stream.compile(cached_only=True)
    assert stream.compile()  # at once
    assert not stream.is_captured
    diary.entries.clear()
    after = steps_of(stream, more[..., 3:])
    assert diary.entries == ["run", "capture", *["replay"] * 16]
    found = torch.cat((before, after), dim=-2)
    torch.testing.assert_close(found, feed(fresh, more), **CLOSE)


def test_what_cannot_be_compiled_stays_as_it_was(
    lm: LanguageModel,
    diary: Diary,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(program: object) -> None:
        raise ValueError("no compiler\nfor this")

    monkeypatch.setattr(decode_step, "fuse", fail)
    stream = stream_of(lm, tokens(14))
    steps_of(stream, tokens(3))
    with caplog.at_level(logging.WARNING, logger="streamingllm"):
        assert not stream.compile(wait=True)
    assert "stays uncompiled: no compiler" in caplog.text
    assert stream.is_captured


def test_an_engine_has_a_graph_for_each_size_of_steps(
    lm: LanguageModel, diary: Diary, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = [tokens(3 + 11 * i, seed=i).tolist() for i in range(5)]
    stepped: list[list[int]] = []
    written: dict[str, tuple[list[int], list[int]]] = {}
    with Engine(lm, CONFIG, max_streams=4) as engine:
        decoding = engine._runner._step
        assert decoding is not None
        run = decoding.run

        def seen(step_tokens: list[StepToken], *rest: Any) -> Tensor:
            stepped.append([token.slot for token in step_tokens])
            return run(step_tokens, *rest)

        monkeypatch.setattr(decoding, "run", seen)
        while prompts or engine.has_work:
            if prompts:
                params = SamplingParams(max_new_tokens=6 + 6 * len(prompts), ignore_eos=True)
                prompt, stream_id = prompts.pop(), engine.open_stream()
                engine.submit(stream_id, prompt, params)
                written[stream_id] = (prompt, [])
            for output in engine.step():
                written[output.stream_id][1].extend(output.token_ids)
                if output.finish_reason is not None:
                    engine.close_stream(output.stream_id)
        sizes = Counter(decoding._size(len(slots)) for slots in stepped)
        assert decoding.num_graphs == sum(times > 1 for times in sizes.values()) > 1
    assert all(len(set(slots)) == len(slots) for slots in stepped)
    for prompt, found in written.values():
        alone = Stream(lm.model, CONFIG)
        logits = feed(alone, torch.tensor(prompt + found[:-1]))[len(prompt) - 1 :]
        chosen = logits.gather(1, torch.tensor(found, device=logits.device)[:, None])[:, 0]
        assert bool((chosen >= logits.max(dim=-1).values - 1e-3).all())
