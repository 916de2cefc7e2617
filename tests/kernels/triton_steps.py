"""Decode steps of whole models on Triton's kernels; `test_triton` runs this file.

On a GPU the kernels are compiled and steps are CUDA graphs, elsewhere the interpreter runs them.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from streamingllm import SinkCache
from streamingllm.attention import step_plan
from streamingllm.graphs import decode_step, step_linears
from streamingllm.graphs.cuda_graphs import CapturedSteps
from streamingllm.graphs.decode_step import DecodeStep, StepToken
from streamingllm.kernels import gpu
from streamingllm.kernels.triton import decode_attention
from tests.graphs.rerun import Rerun
from tests.reference.families import model_of
from tests.reference.family import VOCAB_SIZE
from tests.reference.rounding import assert_rounded_alike

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture(autouse=True)
def _on_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU, give to processors what GPUs get."""
    if DEVICE.type == "cuda":
        assert gpu.load()
        return
    monkeypatch.setattr(step_plan, "decode_attention", decode_attention)
    monkeypatch.setattr(step_linears, "linear", gpu._linear)
    monkeypatch.setattr(decode_step, "_capturing", lambda device: CapturedSteps(Rerun(), device))


@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt-oss"])
@pytest.mark.parametrize("cache", ["none", "int8"])
def test_steps_equal_passes(family: str, cache: str) -> None:
    model = model_of.__wrapped__(family, torch.float32).to(DEVICE)
    rings, truth, lost = (
        SinkCache(model, 3, m, max_rewind_tokens=4, quantize_cache=cache) for m in (9, 9, 8)
    )
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, VOCAB_SIZE, (2, 26), generator=generator).to(DEVICE)
    mask = torch.ones_like(ids)
    mask[1, :5] = 0  # streams stand at different positions
    for each in (rings, truth, lost):
        _read(model, each, ids[:, :12], mask[:, :12])
    decoding = DecodeStep(model, rings.attachment, rings.encodings, rings.geometry_of)
    decoding._sizes = (4,)  # so that two tokens without a slot join
    logits: list[tuple[Tensor, Tensor, Tensor]] = []  # found, expected, of a window too short
    for column in range(12, 26):
        token, positions = ids[:, column], rings.positions.per_stream(2)
        step_tokens = [
            StepToken(int(token[row]), row, position, rings.step_layouts(row, position))
            for row, position in enumerate(positions)
        ]
        found = decoding.run(step_tokens, rings.ring_buffers)
        rings.count_step()
        expected, broken = (_read(model, each, token[:, None]) for each in (truth, lost))
        logits.append((found, expected, broken))
    for each in (rings, truth, lost):
        each.rewind(4)
    after = (_read(model, each, ids[:, :3]) for each in (rings, truth, lost))
    found, expected, broken = map(torch.stack, zip(*logits, tuple(after), strict=True))
    if cache == "none":
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    else:
        assert_rounded_alike(found, expected, broken)


def test_sizes_are_captured_ahead_and_nothing_is_written() -> None:
    model = model_of.__wrapped__("gemma3", torch.float32).to(DEVICE)
    rings = SinkCache(model, 3, 9, max_rewind_tokens=4)
    ids = torch.randint(0, VOCAB_SIZE, (3, 14), generator=torch.Generator().manual_seed(0))
    _read(model, rings, ids.to(DEVICE))
    decoding = DecodeStep(model, rings.attachment, rings.encodings, rings.geometry_of)
    decoding._sizes = (1, 2, 4, 8)
    before = [x.clone() for layer in rings.ring_buffers for x in layer if x is not None]
    decoding.capture(3, rings.ring_buffers)
    assert decoding.num_graphs == 3
    after = [x for layer in rings.ring_buffers for x in layer if x is not None]
    assert all(torch.equal(x, y) for x, y in zip(before, after, strict=True))
    num_first_steps = decoding.num_first_steps
    tokens = [StepToken(5, row, 14, rings.step_layouts(row, 14)) for row in range(3)]
    logits = decoding.run(tokens, rings.ring_buffers)
    assert logits.shape == (3, VOCAB_SIZE)
    assert not logits.isnan().any()
    assert decoding.num_first_steps == num_first_steps


@torch.no_grad()
def _read(
    model: torch.nn.Module, cache: SinkCache, ids: Tensor, mask: Tensor | None = None
) -> Tensor:
    logits: Tensor = model(ids, past_key_values=cache, attention_mask=mask).logits[:, -1]
    return logits
