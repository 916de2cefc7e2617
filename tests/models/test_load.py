from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from streamingllm.errors import ConfigError
from streamingllm.models import load_model


def test_a_model_is_ready_for_inference(tiny_folder: Path) -> None:
    language_model = load_model(tiny_folder, device="cpu")
    assert not language_model.model.training
    assert not any(p.requires_grad for p in language_model.model.parameters())
    assert language_model.name == str(tiny_folder)
    assert language_model.source == f"folder:{tiny_folder}"


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_a_dtype_is_that_of_every_weight(tiny_folder: Path, dtype: str) -> None:
    for asked in (dtype, getattr(torch, dtype)):
        model = load_model(tiny_folder, dtype=asked, device="cpu").model
        assert {p.dtype for p in model.parameters()} == {getattr(torch, dtype)}


def test_auto_is_float32_where_half_precision_is_slow(tiny_folder: Path, tiny_gguf: Path) -> None:
    assert load_model(tiny_folder, device="cpu").model.dtype is torch.float32
    assert load_model(tiny_gguf, device="cpu").model.dtype is torch.float32


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_auto_is_the_stored_dtype_on_a_gpu(tiny_folder: Path) -> None:
    model = load_model(tiny_folder).model
    assert model.dtype is torch.bfloat16
    assert model.device.type == "cuda"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dtype": "int8"}, "dtype='int8' is unknown; choose one of auto, float64, float32"),
        ({"dtype": torch.int32}, "dtype='int32' is unknown; choose one of auto"),
        ({"device": "cuda:99"}, "device='cuda:99' is unknown; choose one of auto, cpu"),
        ({"device": "abacus"}, "device='abacus' is unknown; choose one of auto, cpu"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_fetched(
    arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load_model("organisation/model", **arguments)
