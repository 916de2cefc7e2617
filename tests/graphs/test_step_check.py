"""A step that differs from a pass is noticed before a stream uses it, and passes take its place."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from copy import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from streamingllm import Engine, SamplingParams, SinkCache, Stream, StreamConfig
from streamingllm.attention.step_plan import StepPlan
from streamingllm.graphs import step_check
from streamingllm.graphs.step_check import check_step
from streamingllm.graphs.step_module import StepModule
from streamingllm.graphs.step_support import declared_unsupported_reason, unsupported_reason
from streamingllm.integration.attach import attachment_of
from streamingllm.kernels import native
from tests.reference.families import FAMILIES, model_of
from tests.reference.streams import sink_strategy
from tests.reference.tiny_lm import tiny_lm

CONFIG = StreamConfig(num_sink_tokens=3, window_size=9)
Forward = Callable[[StepModule, Tensor, Any], Tensor]


@pytest.fixture(autouse=True)
def _native_kernels() -> None:
    if not native.load():
        pytest.skip("needs a C++ compiler and a processor with AVX2")


@pytest.fixture
def model() -> PreTrainedModel:
    """A model that nothing has been found out about yet."""
    return tiny_lm.__wrapped__().model


def tokens(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 257, shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_step_that_is_right_is_trusted(name: str, dtype: torch.dtype) -> None:
    model = model_of(name, dtype)
    with SinkCache(model) as cache:
        declared = declared_unsupported_reason(model, cache.attachment, cache.encodings)
        assert unsupported_reason(model, cache.attachment, cache.encodings) == declared


def test_differences_are_far_from_the_tolerance() -> None:
    for name in ("llama", "gemma3", "gpt-oss", "qwen2-moe"):
        model = model_of(name, torch.float32)
        with SinkCache(model) as cache:
            found = list(step_check._differences(model, cache.attachment, first_id=0))
        assert len(found) == 3
        assert max(difference for _, difference in found) < step_check.TOLERANCE_FULL / 20


own_forward = StepModule.forward


def wrong_slot(module: StepModule, numbers: Tensor, buffers: Any) -> Tensor:
    """Both tokens go to the first slot."""
    moved = numbers.clone()
    moved[1] = 0
    return own_forward(module, moved, buffers)


def wrong_position(module: StepModule, numbers: Tensor, buffers: Any) -> Tensor:
    """Tokens stand one position later, keys and queries alike, next to older keys."""
    moved = numbers.clone()
    moved[2] += 1
    return own_forward(module, moved, buffers)


def short_window(module: StepModule, numbers: Tensor, buffers: Any) -> Tensor:
    """Queries do not see the oldest token of the window."""
    cut = numbers.clone()
    cut[6] -= 1
    return own_forward(module, cut, buffers)


def wrong_alone(module: StepModule, numbers: Tensor, buffers: Any) -> Tensor:
    """A stream by itself gets what is not its own."""
    logits = own_forward(module, numbers, buffers)
    return logits.roll(1, dims=-1) if numbers.shape[1] == 1 else logits


def not_finite(module: StepModule, numbers: Tensor, buffers: Any) -> Tensor:
    return own_forward(module, numbers, buffers) * float("nan")


def failing(module: StepModule, numbers: Tensor, buffers: Any) -> Tensor:
    raise RuntimeError("no kernel for this\nand a long tale")


BROKEN = (wrong_slot, wrong_position, short_window, wrong_alone, not_finite, failing)


@pytest.mark.parametrize("forward", BROKEN)
def test_a_broken_step_is_replaced_by_passes(
    forward: Forward,
    model: PreTrainedModel,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(StepModule, "forward", forward)
    ids, more = tokens(2, 20), tokens(2, 5, seed=1)
    stream, chunked = Stream(model, CONFIG), Stream(model, CONFIG)
    with caplog.at_level(logging.WARNING, "streamingllm"):
        for each in (stream, chunked):
            each.feed(ids)
        assert caplog.records == []  # the step is tried when it is needed first
        single = torch.cat([stream.feed(part) for part in more.split(1, dim=1)], dim=1)
        assert not stream.compile(wait=True)
    torch.testing.assert_close(single, chunked.feed(more), rtol=1e-4, atol=1e-4)
    assert sink_strategy(stream)._step() is None
    (record,) = caplog.records
    assert record.getMessage().startswith("llama decodes by ordinary passes: its decode step ")


def test_sinks_seen_from_elsewhere_are_noticed(
    model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StepPlan, "_for_sinks", lambda plan, layer, q: q)
    with SinkCache(model) as cache:
        reason = str(check_step(model, cache.attachment))
    assert reason.startswith("its decode step differs from a pass by ")
    assert reason.endswith(f"more than {step_check.TOLERANCE_FULL}")


def test_an_engine_says_why_its_streams_do_not_step(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = tiny_lm.__wrapped__()
    params = SamplingParams(max_new_tokens=6, temperature=0.0)
    prompts = [tokens(20, seed=seed).tolist() for seed in (0, 1)]

    def run() -> list[list[int]]:
        with Engine(lm, CONFIG, max_streams=2) as engine:
            reasons.append(engine.batching_unsupported_reason)
            return [list(each.token_ids) for each in engine.generate(prompts, params)]

    reasons: list[str | None] = []
    expected = run()
    monkeypatch.setattr(StepModule, "forward", failing)
    step_check._reasons.pop(attachment_of(lm.model))
    assert run() == expected
    assert reasons == [None, "its decode step fails on a few tokens (no kernel for this)"]


def test_one_token_that_experts_send_elsewhere_is_no_reason(
    model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[int] = []

    def differences(*args: Any, first_id: int) -> list[tuple[str, float]]:
        tries.append(first_id)
        return [("somewhere", 0.5 if len(tries) == 1 else 0.0)]

    monkeypatch.setattr(step_check, "_differences", differences)
    with SinkCache(model) as cache:
        assert check_step(model, cache.attachment) is None
        assert len(set(tries)) == len(tries) == 2
        assert check_step(model, cache.attachment) is None  # it is not tried again
    assert len(tries) == 2


def test_another_data_type_is_checked_anew(
    model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.dtype] = []

    def find(model: PreTrainedModel, attachment: object) -> None:
        seen.append(model.dtype)

    monkeypatch.setattr(step_check, "_find_reason", find)
    module: torch.nn.Module = model
    with SinkCache(model) as cache:
        check_step(model, cache.attachment)
        module.to(torch.bfloat16)
        check_step(model, cache.attachment)
    assert seen == [torch.float32, torch.bfloat16]


def test_a_check_and_an_attachment_do_not_wait_for_each_other(
    model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a step is checked, another thread attaches a second model of the same decoder."""
    second = copy(model)
    in_check, attached = threading.Event(), threading.Event()
    own_ids = step_check._ids

    def ids(model: PreTrainedModel, first_id: int) -> Tensor:
        in_check.set()
        assert attached.wait(60)
        return own_ids(model, first_id)

    monkeypatch.setattr(step_check, "_ids", ids)

    def attach() -> None:
        assert in_check.wait(60)
        assert attachment_of(second) is attachment_of(model)
        attached.set()

    other = threading.Thread(target=attach)
    with SinkCache(model) as cache:
        other.start()
        assert check_step(model, cache.attachment) is None
    other.join()
