"""Triton's kernels refuse what they cannot take; `test_triton` runs this file.

Shapes and types are checked on the host. Slots, positions and layout are read on the device: a
token that does not fit the buffers writes nothing, and its result is not a number.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from streamingllm.errors import InputError
from streamingllm.kernels.triton import decode_attention, launch, windowed_attention
from tests.kernels.chunk_case import DEVICE, Chunk
from tests.kernels.decode_case import BUFFERS, Case

BASE = Case(device=DEVICE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q": torch.zeros(3, 5, 64)}, "q has 5 heads; they must be a multiple of 2"),
        ({"q_for_sinks": torch.zeros(3, 4, 32)}, r"q_for_sinks is \[3, 4, 32\]; it must be"),
        ({"slots": torch.zeros(2, dtype=torch.int64)}, r"slots is \[2\]; it must be \[3\]"),
        ({"v": torch.zeros(3, 2, 80)}, r"v is \[3, 2, 80\]; it must be \[3, 2, 64\]"),
        ({"k_cache": torch.zeros(4, 2, 64, 74).mT}, "k_cache has strides .* together"),
        ({"q": torch.zeros(4, 64)}, r"q is \[4, 64\]; it must be \[batch, num_heads, head_dim\]"),
        ({"q": torch.zeros(3, 0, 64)}, "q has 0 heads; they must be a multiple of 2"),
        ({"q": torch.zeros(3, 4, 64, requires_grad=True)}, "q requires a gradient"),
        ({"v_cache": torch.zeros(4, 1, 74, 128)}, r"v_cache is \[4, 1, 74, 128\]; it must be"),
        ({"v_cache": torch.zeros(4, 2, 74, 64).bfloat16()}, "v_cache is torch.bfloat16; it must"),
        ({"v_cache": torch.zeros(4, 2, 74, 300)}, "a head has 300 numbers; it must have 1 to 256"),
        ({"k_cache": torch.zeros(8, 74, 64)}, r"k_cache is \[8, 74, 64\]; it must be \[slots, "),
        ({"k_undo": torch.zeros(4, 2, 3, 64).half()}, "k_undo is torch.float16; it must be"),
        ({"v_undo": torch.zeros(4, 2, 2, 64)}, r"v_undo is \[4, 2, 2, 64\]; it must be"),
        ({"slots": torch.zeros(3, dtype=torch.int32)}, "slots is torch.int32; it must be torch.in"),
        ({"positions": torch.zeros(3)}, "positions is torch.float32; it must be torch.int64"),
        ({"layout": torch.zeros(3, 3, dtype=torch.int64)}, r"layout is \[3, 3\]; it must be \[4"),
        ({"sink_logits": torch.zeros(5)}, r"sink_logits is \[5\]; it must be \[4\]"),
    ],
    ids=lambda x: next(iter(x)) if isinstance(x, dict) else "",
)
def test_what_kernels_cannot_take_is_refused(change: dict[str, Tensor], message: str) -> None:
    arguments = BASE.arguments() | {name: x.to(DEVICE) for name, x in change.items()}
    with pytest.raises(InputError, match=message):
        decode_attention(**arguments)


def test_half_of_a_pair_is_refused() -> None:
    with pytest.raises(InputError, match="one of k and v is None; pass both or neither"):
        decode_attention(**BASE.arguments() | {"k": None})


def test_a_negative_softcap_is_refused() -> None:
    with pytest.raises(InputError, match=r"softcap=-1.0 is negative; pass 0 for none"):
        decode_attention(**BASE.arguments() | {"softcap": -1.0})


def test_a_step_of_no_tokens_has_no_results() -> None:
    arguments = BASE.arguments()
    for name in ("q", "q_for_sinks", "k", "v", "slots", "positions"):
        arguments[name] = arguments[name][:0]
    assert decode_attention(**arguments | {"layout": arguments["layout"][:, :0]}).shape == (
        0,
        4,
        64,
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q": torch.zeros(4, 37, 64)}, r"q is \[4, 37, 64\]; it must be \[batch, heads, tokens"),
        ({"k": torch.zeros(2, 3, 61, 64)}, "q has 4 heads; they must be a multiple of 3"),
        ({"k": torch.zeros(2, 2, 60, 64)}, r"v is \[2, 2, 61, 64\]; it must be \[2, 2, 60, 64\]"),
        ({"num_sinks": 25}, "num_sinks=25; it must be from 0 to 24"),
        ({"num_sinks": -1}, "num_sinks=-1; it must be from 0 to 24"),
        ({"window_lengths": torch.ones(36, dtype=torch.int64)}, r"window_lengths is \[36\]; it mu"),
        ({"sinks_seen": torch.ones(37)}, "sinks_seen is torch.float32; it must be torch.int64"),
    ],
    ids=str,
)
def test_chunks_that_the_kernel_cannot_take_are_refused(
    change: dict[str, Any], message: str
) -> None:
    there = {n: x.to(DEVICE) if isinstance(x, Tensor) else x for n, x in change.items()}
    with pytest.raises(InputError, match=message):
        windowed_attention(**Chunk().arguments() | there)


@pytest.mark.parametrize(
    "change",
    [
        {"slots": (0, 4, 1)},
        {"slots": (0, -1, 1)},
        {"slots": (0, 2, 2)},
        {"positions": (3, -1, 1_000_000)},
        {"layout": ((4, 5, 4), (70, 70, 70), (0, 0, 0), (4, 4, 4))},
        {"layout": ((4, 4, 4), (70, 71, 70), (0, 0, 0), (4, 4, 4))},
        {"layout": ((4, 4, 4), (70, 0, 70), (0, 0, 0), (4, 0, 4))},
        {"layout": ((4, -1, 4), (70, 70, 70), (0, -1, 0), (4, 4, 4))},
        {"layout": ((4, 4, 4), (70, 70, 70), (0, 5, 0), (4, 4, 4))},
        {"layout": ((4, 4, 4), (70, 70, 70), (0, 0, 0), (4, 71, 4))},
        {"layout": ((4, 4, 4), (70, 70, 70), (0, 0, 0), (4, 72, 4))},
        {"layout": ((4, 4, 4), (70, 70, 70), (0, 0, 0), (4, 0, 4))},
    ],
    ids=str,
)
@pytest.mark.parametrize("is_quantized", [False, True])
def test_a_token_that_does_not_fit_is_not_a_number(
    change: dict[str, Any], is_quantized: bool
) -> None:
    arguments = replace(BASE, is_quantized=is_quantized, has_sink_logits=True).arguments()
    fitting = {name: arguments[name].clone() for name in BUFFERS}
    slot = int(arguments["slots"][1])
    arguments |= {name: torch.tensor(x, device=DEVICE) for name, x in change.items()}
    out = decode_attention(**arguments)
    assert out[1].isnan().all()
    if "slots" not in change:
        assert not out[::2].isnan().any()
        for name, x in fitting.items():
            assert torch.equal(arguments[name][slot], x[slot])


@pytest.mark.parametrize("is_quantized", [False, True])
def test_sinks_lie_where_the_cache_says(is_quantized: bool) -> None:
    arguments = replace(BASE, is_quantized=is_quantized).arguments()
    arguments["k_sinks"] = None if is_quantized else arguments["k_cache"]
    with pytest.raises(InputError, match="an int8 cache has them beside it, any other in it"):
        decode_attention(**arguments)


def test_doubles_are_refused() -> None:
    with pytest.raises(InputError, match=r"dtype=torch.float64; it must be float32"):
        launch.operand_dtype(torch.zeros(1, dtype=torch.float64))
