"""How a model encodes positions is found out by asking it."""

from __future__ import annotations

import pytest
import torch
from transformers import PreTrainedModel

from streamingllm.positions.detect import detect_positions
from streamingllm.positions.none import NoEncoding
from streamingllm.positions.rope import RopeEncoding
from tests.reference.families import FAMILIES, model_of

# Families with an adapter are not asked.
ASKED = [name for name in FAMILIES if name.split("-")[0] not in ("falcon", "gptj", "mpt", "bloom")]


@pytest.mark.parametrize("name", ASKED)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_layers_are_what_is_known_of_the_family(name: str, dtype: torch.dtype) -> None:
    cache_size = 16
    model = as_loaded(name) if dtype == torch.bfloat16 else model_of(name, dtype)
    found = detect_positions(model, model.get_decoder()).encodings(cache_size)
    for encoding, facts in zip(found, FAMILIES[name].facts(cache_size), strict=True):
        if facts.inv_freq is None:
            assert isinstance(encoding, NoEncoding)
            continue
        assert isinstance(encoding, RopeEncoding)
        torch.testing.assert_close(encoding.inv_freq, facts.inv_freq, rtol=1e-6, atol=0)
        assert encoding.layout == facts.layout
        assert encoding.key_start == facts.cached_start
        assert encoding.in_values == (facts.cached == "values")


def as_loaded(family: str) -> PreTrainedModel:
    """A bfloat16 model as `from_pretrained` makes it: its rotary buffers stay in float32."""
    model, exact = model_of(family, torch.bfloat16), model_of(family, torch.float32)
    kept = dict(exact.named_buffers())
    for name, buffer in model.named_buffers():
        if name.endswith("inv_freq") and name in kept:
            buffer.data = kept[name].clone()
    return model


def test_equal_encodings_are_shared() -> None:
    """Layers that encode alike share one object, so a pass turns its tables once."""
    for name in ("llama", "gemma2-6", "smollm3"):
        model = model_of(name)
        found = detect_positions(model, model.get_decoder()).encodings(16)
        assert found[0] is found[2]
