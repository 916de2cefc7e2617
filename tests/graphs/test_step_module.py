"""Steps that the operator makes against ordinary passes of the model."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import PreTrainedModel

from streamingllm import SinkCache, Stream, StreamConfig
from streamingllm.attention.step_plan import RingBuffers
from streamingllm.graphs import step_support
from streamingllm.graphs.step_linears import join_siblings
from streamingllm.graphs.step_module import StepModule
from streamingllm.graphs.step_support import unsupported_reason
from streamingllm.integration.checked_cache import AttentionFacts
from streamingllm.kernels import gpu, native
from streamingllm.strategies import SinkStrategy
from tests.reference.families import FAMILIES, model_of
from tests.reference.family import VOCAB_SIZE
from tests.reference.rounding import assert_rounded_alike

CLOSE = {"rtol": 1e-4, "atol": 1e-4}
WITH_EXPERTS = ("qwen2-moe", "granite-moe", "gpt-oss")  # which are chosen on the host
STEPPING = (
    "llama",
    "llama3",
    "llama-dynamic",
    "llama-yarn",
    "mistral-5",
    "mistral-16",
    "qwen2",
    "qwen3",
    "qwen2-moe",
    "gemma2-6",
    "gemma2-14",
    "gemma3",
    "phi",
    "phi3-long",
    "stablelm",
    "gpt-neox",
    "cohere2",
    "glm4",
    "granite-moe",
    "smollm3",
    "gpt-oss",
)


@pytest.fixture(autouse=True)
def _native_kernels() -> None:
    if not native.load():
        pytest.skip("needs a C++ compiler and a processor with AVX2")


def tokens(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, VOCAB_SIZE, shape, generator=torch.Generator().manual_seed(seed))


def steps_of(stream: Stream, ids: Tensor) -> Tensor:
    """Feed ids [batch, seq] one by one; return logits [batch, seq, vocab]."""
    return torch.cat([stream.feed(ids[:, i : i + 1]) for i in range(ids.shape[1])], dim=1)


def passes_of(model: PreTrainedModel, cache: SinkCache, ids: Tensor) -> Tensor:
    with torch.no_grad():
        parts = [model(part, past_key_values=cache).logits for part in ids.split(1, dim=1)]
    return torch.cat(parts, dim=1)


@pytest.mark.parametrize("family", STEPPING)
def test_steps_equal_passes(family: str) -> None:
    model = model_of(family, torch.float32)
    for n, m in FAMILIES[family].shapes:
        ids = tokens(2, n + 2 * m + 5)
        stream, cache = Stream(model, StreamConfig(n, m)), SinkCache(model, n, m)
        assert can_step(stream), family
        stream.feed(ids[:, :n])
        passes_of(model, cache, ids[:, :n])
        expected = passes_of(model, cache, ids[:, n:])
        torch.testing.assert_close(steps_of(stream, ids[:, n:]), expected, **CLOSE)
        torch.testing.assert_close(  # a chunk reads what steps have written
            stream.feed(ids[:, :7])[:, -1], passes_of(model, cache, ids[:, :7])[:, -1], **CLOSE
        )


def can_step(stream: Stream) -> bool:
    strategy = stream._strategy
    assert isinstance(strategy, SinkStrategy)
    return strategy._step() is not None


@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt-oss"])
@pytest.mark.parametrize("quantize_cache", ["none", "int8"])
def test_streams_of_different_lengths_step_together(family: str, quantize_cache: str) -> None:
    model, ids, more = model_of(family, torch.float32), tokens(3, 40), tokens(3, 9, seed=1)
    config = StreamConfig(4, 12, quantize_cache=quantize_cache)
    mask = torch.ones(3, 40)
    mask[0, :11], mask[1, :33] = 0, 0
    together = Stream(model, config)
    together.feed(ids, attention_mask=mask)
    found = steps_of(together, more)
    for row, first in enumerate((11, 33, 0)):
        alone, lost = Stream(model, config), Stream(model, replace(config, window_size=11))
        for each in (alone, lost):
            each.feed(ids[row : row + 1, first:])
        expected = steps_of(alone, more[row : row + 1])
        if quantize_cache == "none":
            torch.testing.assert_close(found[row : row + 1], expected, **CLOSE)
        else:
            broken = steps_of(lost, more[row : row + 1])
            assert_rounded_alike(found[row : row + 1], expected, broken)


@pytest.mark.parametrize("n", [0, 1, 4])
def test_any_number_of_sinks(n: int) -> None:
    model, ids = model_of("llama", torch.float32), tokens(1, 40)
    stream, cache = Stream(model, StreamConfig(n, 6)), SinkCache(model, n, 6)
    expected = passes_of(model, cache, ids)
    torch.testing.assert_close(steps_of(stream, ids), expected, **CLOSE)


def test_sinks_at_chosen_positions() -> None:
    model, ids = model_of("llama", torch.float32), tokens(1, 60)
    config = StreamConfig(2, 8, sink_positions=(3, 17))
    stream, cache = Stream(model, config), SinkCache(model, 2, 8, sink_positions=(3, 17))
    torch.testing.assert_close(steps_of(stream, ids), passes_of(model, cache, ids), **CLOSE)


def test_steps_can_be_taken_back() -> None:
    model, ids, more = model_of("mistral-9", torch.float32), tokens(1, 40), tokens(1, 9, seed=1)
    config = StreamConfig(4, 9, max_rewind_tokens=6)
    stream, fresh = Stream(model, config), Stream(model, config)
    stream.feed(ids)
    steps_of(stream, tokens(1, 6, seed=2))
    stream.rewind(6)
    fresh.feed(ids)
    torch.testing.assert_close(stream.next_logits, fresh.next_logits, **CLOSE)
    torch.testing.assert_close(steps_of(stream, more), fresh.feed(more), **CLOSE)


@pytest.mark.parametrize("where", ["model.layers.0.mlp", "model.layers.2.mlp"])
def test_a_step_that_fails_leaves_the_stream_as_it_was(where: str) -> None:
    model, ids, more = model_of("llama", torch.float32), tokens(1, 40), tokens(1, 9, seed=1)
    config = StreamConfig(4, 9, max_rewind_tokens=6)
    stream, fresh = Stream(model, config), Stream(model, config)
    stream.feed(ids)
    fresh.feed(ids)

    def fail(*args: object) -> None:
        raise RuntimeError("out of memory")

    handle = model.get_submodule(where).register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        stream.feed(more[:, :1])
    handle.remove()
    assert stream.num_seen_tokens == 40
    torch.testing.assert_close(stream.fork().feed(more), fresh.fork().feed(more), **CLOSE)
    stream.feed(more[:, :1])  # another try
    fresh.feed(more[:, :1])
    for each in (stream, fresh):
        each.rewind(4)
    torch.testing.assert_close(stream.feed(more), fresh.feed(more), **CLOSE)


def test_the_model_is_left_as_it_was() -> None:
    model = model_of.__wrapped__("llama", torch.float32)
    ids = tokens(1, 9)
    expected = model(ids).logits
    stream = Stream(model, StreamConfig(2, 5))
    before = [sorted(vars(module)) for module in model.modules()]
    steps_of(stream, ids)
    assert [sorted(vars(module)) for module in model.modules()] == before
    assert torch.equal(model(ids).logits, expected)


@pytest.mark.parametrize(
    ("family", "dtype", "reason"),
    [
        ("bloom", torch.float32, "bloom bypasses"),
        ("gptj", torch.float32, "gptj bypasses"),
        ("falcon-alibi", torch.float32, "falcon bypasses"),
        ("deepseek-v3", torch.float32, "latent keys"),
        ("llama", torch.float64, "dtype is torch.float64"),
        ("llama", torch.float16, "dtype is torch.float16"),
    ],
)
def test_what_cannot_step_says_why_and_runs_all_the_same(
    family: str, dtype: torch.dtype, reason: str
) -> None:
    model = model_of(family, dtype)
    cache = SinkCache(model, 4, 12)
    found = unsupported_reason(model, cache.attachment, cache.encodings)
    assert found is not None
    assert reason in found
    stream = Stream(model, StreamConfig(4, 12))
    logits = steps_of(stream, tokens(1, 20))
    assert bool(logits.isfinite().all())
    assert not stream.compile(wait=True)
    assert not stream.is_compiled


def test_other_devices_say_why() -> None:
    model = model_of.__wrapped__("llama", torch.float32)
    cache = SinkCache(model, 4, 12)
    model.lm_head.to("meta")
    found = unsupported_reason(model, cache.attachment, cache.encodings)
    assert found == "the model lies on several devices"
    model.to("meta")
    found = unsupported_reason(model, cache.attachment, cache.encodings)
    assert found == "the device is meta, kernels run on CPUs and CUDA"


@pytest.mark.parametrize(
    ("dtype", "has_triton", "reason"),
    [
        (torch.float16, True, None),
        (torch.bfloat16, True, None),
        (torch.float64, True, "dtype is torch.float64, kernels take float32, bfloat16, float16"),
        (torch.float32, False, "there are no Triton kernels here"),
    ],
)
def test_what_a_gpu_takes(
    dtype: torch.dtype, has_triton: bool, reason: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "load", lambda: has_triton)
    there = SimpleNamespace(device=torch.device("cuda", 0), dtype=dtype)
    facts = AttentionFacts(frozenset({(64, 64)}), ())
    assert step_support._kernels_unsupported_reason(there, facts) == reason


class _Devices(TorchDispatchMode):
    """See where the tensors of all operations are."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        leaves = tree_leaves((args, kwargs, out))
        self.found |= {x.device.type for x in leaves if isinstance(x, Tensor)}
        return out


@pytest.mark.parametrize("family", [f for f in STEPPING if f not in WITH_EXPERTS])
def test_nothing_in_a_step_goes_to_the_host_or_comes_from_it(family: str) -> None:
    """Neither can be captured. Tensors without memory do: reading one would raise."""
    model = model_of.__wrapped__(family, torch.float32)
    cache = SinkCache(model, *FAMILIES[family].shapes[0])
    model(tokens(1, 1), past_key_values=cache)
    join_siblings(model)
    module = StepModule(model, cache.attachment, cache.encodings, cache.geometry_of)
    for part in module.modules():
        for tensors in (part._parameters, part._buffers):
            for name, tensor in tensors.items():
                tensors[name] = None if tensor is None else nn.Parameter(tensor.to("meta"), False)
    rings = [
        RingBuffers(*(None if x is None else x.to("meta") for x in layer))
        for layer in cache.ring_buffers
    ]
    rows = 3 + 5 * (max(cache.geometry_of) + 1)
    numbers = torch.ones(rows, 1, dtype=torch.int64, device="meta")
    with torch.no_grad(), _Devices() as devices:
        module(numbers, rings)
    assert devices.found == {"meta"}
