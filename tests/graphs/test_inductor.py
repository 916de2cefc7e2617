"""A step compiled in this process computes what the uncompiled one does, and copies no ring."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch._inductor.utils import run_and_get_code

from streamingllm import Stream, StreamConfig
from streamingllm.attention.step_plan import RingBuffers
from streamingllm.graphs.decode_step import StepToken
from streamingllm.graphs.inductor import fuse
from streamingllm.integration.sink_cache import SinkCache
from streamingllm.kernels import native
from streamingllm.kernels.rows import decode_rows
from tests.graphs.test_step_module import tokens
from tests.reference.families import model_of
from tests.reference.rounding import assert_rounded_alike
from tests.reference.streams import decode_step_of, sink_strategy

# Inductor imports what torch itself has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:.*script_method.*deprecated:DeprecationWarning")


@pytest.mark.parametrize(
    ("family", "batch_sizes", "cache"),
    [("llama", (1,), "none"), ("llama", (3, 2, 5), "int8"), ("gemma3", (3, 2, 5), "none")],
)
def test_a_fused_step_is_the_step(family: str, batch_sizes: tuple[int, ...], cache: str) -> None:
    if not native.load():
        pytest.skip("needs a C++ compiler and a processor with AVX2")
    stream = Stream(model_of(family, torch.float32), StreamConfig(3, 9, quantize_cache=cache))
    stream.feed(tokens(max(batch_sizes) + 1, 20))
    strategy = sink_strategy(stream)
    rings, step = strategy.cache.ring_buffers, decode_step_of(stream)
    many = len(batch_sizes) > 1
    program = step._export(many, step._example(many, rings))
    with torch._inductor.config.patch(force_disable_caches=True):
        fused, (code,) = run_and_get_code(fuse, program)
    assert code.count("decode_attention.default(") == len(rings)
    assert "auto_functionalized" not in code
    assert "copy_(" not in code.partition("def call")[2]

    truth = [_copied(layer) for layer in rings]
    logits: list[tuple[Tensor, Tensor, Tensor]] = []
    for position, batch in enumerate(5 * batch_sizes, start=20):
        numbers = _numbers(strategy.cache, position, batch)
        found = fused([numbers, *_tensors(rings)])[0]
        with torch.inference_mode():
            expected = step._module(numbers, truth)
        if cache == "none":
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
            continue
        with torch.inference_mode():  # one position late, in rings that are thrown away
            late = _numbers(strategy.cache, position + 1, batch)
            broken = step._module(late, [_copied(layer) for layer in rings])
        logits.append((found, expected, broken))
    if cache != "none":
        assert_rounded_alike(*(torch.cat(parts) for parts in zip(*logits, strict=True)))
    # Rounding may move a value by a code; a row holds 127 of them on either side of zero.
    step_of_a_code = 0.0 if cache == "none" else 1 / 127
    for x, y in zip(_tensors(rings), _tensors(truth), strict=True):
        size = float(_values(y).abs().max())
        torch.testing.assert_close(
            _values(x), _values(y), rtol=1e-4, atol=1e-4 + step_of_a_code * size
        )


def _copied(layer: RingBuffers) -> RingBuffers:
    return RingBuffers(*(None if x is None else x.clone() for x in layer))


def _numbers(cache: SinkCache, position: int, batch: int) -> Tensor:
    """Feed token 7 at one position to streams 1, 2 and so on."""
    layouts = cache.step_layouts(0, position)
    tokens = [StepToken(7, row, position, layouts) for row in range(1, batch + 1)]
    return torch.tensor([token.numbers for token in tokens]).T.contiguous()


def _tensors(rings: list[RingBuffers]) -> list[Tensor]:
    return [x for layer in rings for x in layer if x is not None]


def _values(stored: Tensor) -> Tensor:
    return decode_rows(stored) if stored.dtype is torch.int8 else stored
