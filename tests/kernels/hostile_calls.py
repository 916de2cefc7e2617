"""Random and hostile calls of every operator: each is right or refused.

Run by test_sanitizers.py as `python -m tests.kernels.hostile_calls LIBRARY`, with a library built
for AddressSanitizer and UndefinedBehaviorSanitizer. A random call that a kernel accepts must equal
the plain operator's result, and any other call must raise an error. The sanitizers end the process
at the first access outside a tensor.
"""

from __future__ import annotations

import ctypes
import random
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from streamingllm.kernels import operators, reference
from streamingllm.kernels.packing import pack_weight
from tests.kernels.decode_case import Case

NUM_CALLS = 150  # of each operator, in each of two forms
REFUSALS = (RuntimeError, ValueError, TypeError, IndexError, AttributeError)
Arguments = dict[str, Any]


def decode_attention(choose: random.Random) -> Arguments:
    n, m = choose.randint(0, 5), choose.randint(1, 70)
    batch = choose.randint(1, 3)
    case = Case(
        positions=tuple(choose.choice((0, 3, m, 5 * m, 10**6)) for _ in range(batch)),
        dtype=choose.choice((torch.float32, torch.bfloat16)),
        num_kv_heads=choose.randint(1, 3),
        group_size=choose.randint(1, 5),
        key_dim=choose.choice((1, 8, 16, 32, 40, 64, 80, 128, 256)),
        value_dim=choose.choice((16, 32, 64, 128, 250)),
        num_sinks=n,
        window_size=m,
        undo_size=choose.randint(0, 4),
        spare_entries=choose.randint(0, 3),
        is_quantized=choose.random() < 0.3,
        writes=choose.random() < 0.8,
        softcap=choose.choice((0.0, 20.0)),
        has_sink_logits=choose.random() < 0.3,
        seed=choose.randrange(10**6),
    )
    return case.arguments()


def windowed_attention(choose: random.Random) -> Arguments:
    seq, old, n = choose.randint(1, 40), choose.randint(0, 30), choose.randint(0, 4)
    batch, kv_heads, group = choose.randint(1, 2), choose.randint(1, 2), choose.randint(1, 4)
    key_dim, value_dim = (choose.choice((8, 16, 32, 64, 80, 256)) for _ in range(2))
    dtype = choose.choice((torch.float32, torch.bfloat16))
    lengths = [choose.randint(1, old + i + 1) for i in range(seq)]
    return {
        "q": torch.randn(batch, kv_heads * group, seq, key_dim).to(dtype),
        "q_for_sinks": torch.randn(batch, kv_heads * group, seq, key_dim).to(dtype),
        "k": torch.randn(batch, kv_heads, n + old + seq, key_dim).to(dtype),
        "v": torch.randn(batch, kv_heads, n + old + seq, value_dim).to(dtype),
        "sinks_seen": torch.tensor([choose.randint(0, n) for _ in range(seq)]),
        "window_lengths": torch.tensor(lengths),
        "num_sinks": n,
        "scale": key_dim**-0.5,
        "softcap": choose.choice((0.0, 20.0)),
        "sink_logits": torch.randn(kv_heads * group) if choose.random() < 0.3 else None,
    }


def quantized_linear(choose: random.Random) -> Arguments:
    tiles, groups, bits = choose.randint(1, 3), choose.randint(1, 3), choose.choice((4, 8))
    shape = (16 * tiles, 32 * groups)
    codes = torch.randint(*((0, 16) if bits == 4 else (-127, 128)), shape)
    scales = torch.rand(shape[0], groups).half()
    minimums = torch.randn(shape[0], groups).half() if bits == 4 and choose.random() < 0.5 else None
    packed = pack_weight(codes, scales, minimums, bits)
    x = torch.randn(choose.randint(1, 40), shape[1])
    names = ("codes", "scales", "minimums")
    return {"x": x, **dict(zip(names, packed.tensors, strict=True))}


def linear(choose: random.Random) -> Arguments:
    dtype, dim = choose.choice((torch.float32, torch.bfloat16)), choose.choice((1, 16, 40, 64))
    x = torch.randn(choose.randint(1, 40), dim).to(dtype)
    return {"x": x, "weight": torch.randn(choose.choice((1, 16, 30, 64)), dim).to(dtype)}


def token_nll(choose: random.Random) -> Arguments:
    rows, vocab = choose.randint(1, 20), choose.choice((1, 5, 16, 300))
    return {"logits": torch.randn(rows, vocab), "targets": torch.randint(0, vocab, (rows,))}


def argmax(choose: random.Random) -> Arguments:
    return {"logits": torch.randn(choose.randint(1, 4), choose.choice((1, 7, 16, 301)))}


def rms_norm(choose: random.Random) -> Arguments:
    dim = choose.choice((1, 16, 48, 64))
    return {
        "x": torch.randn(choose.randint(1, 40), dim),
        "weight": torch.randn(dim),
        "epsilon": 1e-6,
    }


def swish_gate(choose: random.Random) -> Arguments:
    shape = (choose.randint(1, 40), choose.choice((8, 16, 64)))
    return {"gate": torch.randn(shape), "x": torch.randn(shape)}


def rotate(choose: random.Random) -> Arguments:
    seq, pairs = choose.randint(1, 40), choose.choice((4, 16, 32))
    tables = torch.randn(2, 1, 1, seq, pairs)
    x = torch.randn(choose.randint(1, 2), choose.randint(1, 3), seq, 2 * pairs)
    return {"x": x, "cosines": tables[0], "sines": tables[1]}


def rotary_table(choose: random.Random) -> Arguments:
    positions = torch.randint(0, 10**7, (choose.randint(1, 4), choose.randint(1, 3)))
    inv_freq = torch.rand(choose.choice((1, 16, 33)), dtype=torch.float64)
    return {"positions": positions, "inv_freq": inv_freq, "scaling": 1.0}


MAKERS: dict[str, Callable[[random.Random], Arguments]] = {
    make.__name__: make
    for make in (
        *(decode_attention, windowed_attention, quantized_linear, linear, token_nll),
        *(argmax, rms_norm, swish_gate, rotate, rotary_table),
    )
}


def spoil(arguments: Arguments, choose: random.Random) -> None:
    """Change one argument into something that an operator must not trust."""
    name = choose.choice([name for name, value in arguments.items() if value is not None])
    value = arguments[name]
    if not isinstance(value, Tensor):
        arguments[name] = choose.choice((-1, 0, 10**6, 2**40)) if isinstance(value, int) else -1.0
        return
    if value.dtype is torch.int64 and choose.random() < 0.7:
        spoiled = value.clone()
        spoiled.view(-1)[choose.randrange(max(1, spoiled.numel()))] = choose.choice(
            (-1, 1, 7, 10**6, 2**40, -(2**62))
        )
        arguments[name] = spoiled
        return
    dim = choose.randrange(max(1, value.ndim))
    changes: list[Callable[[], Tensor | None]] = [
        lambda: value.narrow(dim, 0, value.shape[dim] // 2),
        lambda: value.narrow(dim, 0, 0),
        lambda: torch.cat((value, value), dim=dim),
        lambda: value.transpose(dim, -1),
        lambda: value.narrow(dim, 0, 1).expand(value.shape),
        lambda: torch.stack((value, value), dim=-1)[..., 0],  # rows that do not lie together
        lambda: value[None],
        lambda: value.reshape(-1),
        lambda: value.double(),
        lambda: value.to(torch.int8),
        lambda: value.bfloat16() if value.dtype is torch.float32 else value.float(),
        lambda: None,
    ]
    arguments[name] = choose.choice(changes)()


def copied(arguments: Arguments) -> Arguments:
    """Return arguments whose tensors are copies of the same layout in memory."""
    return {n: x.clone() if isinstance(x, Tensor) else x for n, x in arguments.items()}


def outcome(operator: Callable[..., Any], arguments: Arguments) -> Any:
    try:
        return operator(**arguments)
    except REFUSALS:
        return None


def compare(name: str, found: Any, expected: Any) -> None:
    both = (found, expected) if isinstance(found, tuple) else ((found,), (expected,))
    for ours, truth in zip(*both, strict=True):
        assert ours.shape == truth.shape, (name, ours.shape, truth.shape)
        if ours.is_floating_point() and truth.numel():
            torch.testing.assert_close(
                ours.float(), truth.float(), rtol=0.05, atol=0.1, equal_nan=True
            )


def check(name: str, choose: random.Random, *, is_hostile: bool) -> str:
    """Make one call; return whether it was computed or refused."""
    torch.manual_seed(choose.randrange(10**6))
    arguments = MAKERS[name](choose)
    if is_hostile:
        spoil(arguments, choose)
    # A copy would lose the strides that make a call hostile.
    given = arguments if is_hostile else copied(arguments)
    found = outcome(getattr(operators, name), given)
    if found is None:
        return "refused"
    if not is_hostile:
        compare(name, found, getattr(reference, name)(**copied(arguments)))
    return "computed"


def main() -> None:
    """Load the library, make all calls, and print how many were computed and refused."""
    ctypes.CDLL(sys.argv[1], ctypes.RTLD_GLOBAL)
    torch.ops.load_library(sys.argv[1])
    for name in MAKERS:
        for is_hostile in (False, True):
            choose = random.Random(f"{name} {is_hostile}")
            counts = Counter(check(name, choose, is_hostile=is_hostile) for _ in range(NUM_CALLS))
            print(name, "hostile" if is_hostile else "random", dict(counts), flush=True)  # noqa: T201
            assert counts["computed"] > 0 or is_hostile
            assert counts["refused"] > 0 or not is_hostile


if __name__ == "__main__":
    main()
