"""Arguments of operators, and what a caller may do wrong with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from streamingllm.kernels.blocks import FORMATS
from streamingllm.kernels.operators import pack_blocks
from streamingllm.kernels.packing import pack_weight
from tests.kernels.decode_case import Case
from tests.reference.ggml_rows import random_rows

Arguments = dict[str, Any]
DTYPES = (torch.float32, torch.bfloat16)
OPTIONAL = (
    "k", "v", "k_undo", "v_undo", "k_sinks", "v_sinks", "minimums", "sink_logits",
    "order",
)  # fmt: skip
ANY_HEAD_SIZE = st.integers(1, 256) | st.sampled_from([16, 32, 64, 96])
ROW_SIZE = st.sampled_from([1, 15, 16, 17, 32, 48, 64, 96])
_NUMBERS = (-(2**62), -2, -1, 0, 1, 2, 3, 5, 8, 1000, 2**40)


def numbers(seed: int, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@st.composite
def decode_arguments(draw: st.DrawFn) -> Arguments:
    key_dim = draw(ANY_HEAD_SIZE)
    case = Case(
        positions=tuple(draw(st.lists(st.sampled_from([0, 3, 7, 8, 100]), min_size=1, max_size=4))),
        slots=tuple(draw(st.lists(st.integers(0, 3), min_size=4, max_size=4))),
        dtype=draw(st.sampled_from(DTYPES)),
        num_kv_heads=draw(st.integers(1, 3)),
        group_size=draw(st.integers(1, 5)),
        key_dim=key_dim,
        value_dim=draw(ANY_HEAD_SIZE | st.just(key_dim)),
        num_sinks=draw(st.integers(0, 3)),
        window_size=draw(st.sampled_from([1, 8, 70])),
        undo_size=draw(st.sampled_from([0, 1, 5])),
        is_quantized=draw(st.booleans()),
        writes=draw(st.booleans()),
        has_sink_logits=draw(st.booleans()),
        seed=draw(st.integers(0, 9)),
    )
    arguments = case.arguments()
    return arguments | {"slots": arguments["slots"][: len(case.positions)]}


@st.composite
def windowed_arguments(draw: st.DrawFn) -> Arguments:
    batch, kv_heads, group_size = (draw(st.integers(1, 2)) for _ in range(3))
    seq, old = draw(st.sampled_from([1, 7, 40])), draw(st.sampled_from([0, 5, 300]))
    num_sinks, dtype = draw(st.sampled_from([0, 2, 9])), draw(st.sampled_from(DTYPES))
    key_dim, value_dim = draw(ANY_HEAD_SIZE), draw(ANY_HEAD_SIZE)
    heads, columns = kv_heads * group_size, num_sinks + old + seq
    return {
        "q": numbers(0, batch, heads, seq, key_dim, dtype=dtype),
        "q_for_sinks": numbers(1, batch, heads, seq, key_dim, dtype=dtype),
        "k": numbers(2, batch, kv_heads, columns, key_dim, dtype=dtype),
        "v": numbers(3, batch, kv_heads, columns, value_dim, dtype=dtype),
        "sinks_seen": torch.arange(seq).clamp(max=num_sinks),
        "window_lengths": (torch.arange(seq) + old + 1).clamp(max=draw(st.integers(1, 400))),
        "num_sinks": num_sinks,
        "scale": 0.1,
        "softcap": draw(st.sampled_from([0.0, 5.0])),
        "sink_logits": numbers(4, heads) if draw(st.booleans()) else None,
    }


@st.composite
def quantized_linear_arguments(draw: st.DrawFn) -> Arguments:
    bits, tiles, groups = draw(st.sampled_from([4, 8])), draw(st.integers(1, 6)), 3
    generator = torch.Generator().manual_seed(draw(st.integers(0, 9)))
    codes = torch.randint(0, 2**bits, (16 * tiles, 32 * groups), generator=generator)
    scales = torch.rand(16 * tiles, groups, generator=generator).half()
    packed = pack_weight(
        codes - (128 if bits == 8 else 0), scales, scales if draw(st.booleans()) else None, bits
    )
    batch = draw(st.sampled_from([1, 5, 19, 20, 45]))
    x = numbers(1, batch, 32 * groups, dtype=draw(st.sampled_from(DTYPES)))
    return dict(zip(("x", "codes", "scales", "minimums"), (x, *packed.tensors), strict=True))


@st.composite
def block_linear_arguments(draw: st.DrawFn) -> Arguments:
    rows = draw(block_row_arguments())
    blocks = pack_blocks(rows["rows"], rows["format"], rows["in_features"], None)
    batch = draw(st.sampled_from([1, 5, 19, 20, 45]))
    return {
        "x": numbers(1, batch, rows["in_features"], dtype=draw(st.sampled_from(DTYPES))),
        "blocks": blocks,
        "format": rows["format"],
        "out_features": len(rows["rows"]),
    }


@st.composite
def block_rows_arguments(draw: st.DrawFn) -> Arguments:
    rows = draw(block_row_arguments())
    blocks = pack_blocks(rows["rows"], rows["format"], rows["in_features"], None)
    return {
        "ids": torch.arange(draw(st.integers(0, 9))) % len(rows["rows"]),
        "blocks": blocks,
        "format": rows["format"],
        "out_features": len(rows["rows"]),
        "in_features": rows["in_features"],
    }


@st.composite
def block_row_arguments(draw: st.DrawFn) -> Arguments:
    num_rows, format = draw(st.integers(1, 70)), draw(st.sampled_from(list(FORMATS)))
    order = torch.arange(num_rows).flip(0) if draw(st.booleans()) else None
    rows = random_rows(format, num_rows, 256, draw(st.integers(0, 9)))
    return {"rows": rows, "format": format, "in_features": 256, "order": order}


@st.composite
def linear_arguments(draw: st.DrawFn) -> Arguments:
    out_features, in_features = draw(st.integers(1, 130)), draw(ROW_SIZE)
    batch = draw(st.sampled_from([1, 5, 19, 20, 45]))
    return {
        "x": numbers(0, batch, in_features, dtype=draw(st.sampled_from(DTYPES))),
        "weight": numbers(1, out_features, in_features, dtype=draw(st.sampled_from(DTYPES))),
    }


@st.composite
def token_nll_arguments(draw: st.DrawFn) -> Arguments:
    rows, vocab = draw(st.integers(1, 5)), draw(st.integers(1, 200))
    logits = numbers(0, rows, vocab, dtype=draw(st.sampled_from(DTYPES)))
    return {"logits": logits, "targets": torch.arange(rows) % vocab}


@st.composite
def argmax_arguments(draw: st.DrawFn) -> Arguments:
    shape = draw(st.integers(1, 5)), draw(st.integers(1, 200))
    return {"logits": numbers(0, *shape, dtype=draw(st.sampled_from(DTYPES)))}


@st.composite
def rms_norm_arguments(draw: st.DrawFn) -> Arguments:
    rows, dim, dtype = draw(st.integers(1, 40)), draw(ROW_SIZE), draw(st.sampled_from(DTYPES))
    x, weight = numbers(0, 2, rows, dim, dtype=dtype), numbers(1, dim, dtype=dtype)
    return {"x": x, "weight": weight, "epsilon": 1e-6}


@st.composite
def swish_gate_arguments(draw: st.DrawFn) -> Arguments:
    shape, dtype = (draw(st.integers(1, 40)), draw(ROW_SIZE)), draw(st.sampled_from(DTYPES))
    return {"gate": numbers(0, *shape, dtype=dtype), "x": numbers(1, *shape, dtype=dtype)}


@st.composite
def rotate_arguments(draw: st.DrawFn) -> Arguments:
    seq, pairs, dtype = draw(st.integers(1, 40)), draw(ROW_SIZE), draw(st.sampled_from(DTYPES))
    angles = numbers(1, draw(st.sampled_from([1, 2])), 1, seq, pairs)
    return {
        "x": numbers(0, 2, 3, seq, 2 * pairs, dtype=dtype),
        "cosines": angles.cos().to(dtype),
        "sines": angles.sin().to(dtype),
    }


@st.composite
def rotary_table_arguments(draw: st.DrawFn) -> Arguments:
    positions = torch.arange(draw(st.integers(0, 9)))
    return {
        "positions": positions,
        "inv_freq": torch.rand(draw(st.integers(1, 40)), dtype=torch.float64),
        "scaling": 1.5,
    }


ARGUMENTS: dict[str, Callable[[], st.SearchStrategy[Arguments]]] = {
    "decode_attention": decode_arguments,
    "windowed_attention": windowed_arguments,
    "quantized_linear": quantized_linear_arguments,
    "block_linear": block_linear_arguments,
    "block_rows": block_rows_arguments,
    "pack_blocks": block_row_arguments,
    "linear": linear_arguments,
    "token_nll": token_nll_arguments,
    "argmax": argmax_arguments,
    "rms_norm": rms_norm_arguments,
    "swish_gate": swish_gate_arguments,
    "rotate": rotate_arguments,
    "rotary_table": rotary_table_arguments,
}


@st.composite
def spoiled(draw: st.DrawFn, arguments: Arguments) -> Arguments:
    """Return arguments of which up to two are something else than they were."""
    names = draw(st.lists(st.sampled_from(sorted(arguments)), max_size=2, unique=True))
    return arguments | {name: draw(_spoiled_value(name, arguments[name])) for name in names}


def _spoiled_value(name: str, value: Any) -> st.SearchStrategy[Any]:
    if isinstance(value, Tensor):
        tensors = _spoiled_tensor(value)
        return tensors | st.none() if name in OPTIONAL else tensors
    if isinstance(value, int):
        return st.sampled_from(_NUMBERS)
    return st.sampled_from([value, 0.0, -1.0]) if isinstance(value, float) else st.none()


@st.composite
def _spoiled_tensor(draw: st.DrawFn, x: Tensor) -> Tensor:
    dim = draw(st.integers(0, x.ndim - 1))
    size = x.shape[dim]
    ways: dict[str, Callable[[], Tensor]] = {
        "empty": lambda: x.narrow(dim, 0, 0),
        "shorter": lambda: x.narrow(dim, 0, max(0, size - 1)),
        "longer": lambda: torch.cat((x, x), dim=dim),
        "one more dimension": lambda: x[None],
        "one dimension less": lambda: x.select(dim, 0) if size else x,
        "transposed": lambda: x.transpose(dim, -1),
        "every second": lambda: x.repeat_interleave(2, dim=dim)[(slice(None),) * dim + _EVERY_2ND],
        "expanded": lambda: x.narrow(dim, 0, 1).expand(x.shape) if size else x,
        "overlapping": lambda: x.as_strided(x.shape, (1,) * x.ndim),
        "misaligned": lambda: torch.cat((x.new_zeros(1), x.flatten()))[1:].view(x.shape),
        "transposed in memory": lambda: x.transpose(dim, -1).contiguous().transpose(dim, -1),
        "flipped": lambda: x.flip(dim),
        "of one number": lambda: x.new_ones(()),
        "not a number": lambda: torch.full_like(x, torch.nan) if x.is_floating_point() else x,
        "another number": lambda: _with(x, draw(st.sampled_from(_NUMBERS))),
        "a gradient": lambda: x.clone().requires_grad_(True) if x.is_floating_point() else x,
        "another type": lambda: x.to(
            draw(st.sampled_from([*DTYPES, torch.float16, torch.float64, torch.int64, torch.int8]))
        ),
    }
    return ways[draw(st.sampled_from(sorted(ways)))]()


_EVERY_2ND = (slice(None, None, 2),)


def _with(x: Tensor, number: int) -> Tensor:
    """Put a number somewhere into integers."""
    if x.is_floating_point() or not x.numel() or x.dtype is not torch.int64:
        return x
    changed = x.clone().flatten()
    changed[abs(number) % len(changed)] = number
    return changed.view(x.shape)
