"""Whatever an operator is given, it computes what the plain truth does, or refuses.

`test_sanitizers` runs this file on kernels that are built with sanitizers.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from streamingllm.kernels import native, operators, reference
from tests.kernels.hostile import ARGUMENTS, Arguments, spoiled

pytestmark = pytest.mark.skipif(not native.load(), reason="needs the native kernels")

BUFFERS = ("k_cache", "v_cache", "k_undo", "v_undo")
hostile = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


def copied(arguments: Arguments) -> Arguments:
    """Return arguments with buffers of their own, each with the strides it has."""
    return arguments | {name: _copy(x) for name, x in _buffers(arguments)}


def _buffers(arguments: Arguments) -> list[tuple[str, Tensor]]:
    return [(name, arguments[name]) for name in BUFFERS if arguments.get(name) is not None]


def _copy(x: Tensor) -> Tensor:
    with torch.no_grad():
        storage = x.untyped_storage().clone()
        copy = x.new_empty(0).set_(storage, x.storage_offset(), x.shape, x.stride())
    return copy.requires_grad_(x.requires_grad)


def comparable(arguments: Arguments) -> bool:
    """Whether numbers are numbers, and no two writes go to one place."""
    tensors = [x for x in arguments.values() if isinstance(x, Tensor)]
    has_nan = any(x.is_floating_point() and bool(x.isnan().any()) for x in tensors)
    overlapping = any(torch._debug_has_internal_overlap(x) == 1 for _, x in _buffers(arguments))
    strides = [x.stride() for _, x in _buffers(arguments)]
    return not has_nan and not overlapping and all(len(set(s)) == len(s) for s in strides)


def assert_same(x: Tensor, y: Tensor, tolerance: float = 0.0, least_size: float = 1.0) -> None:
    assert x.shape == y.shape
    x, y = x.detach().double(), y.detach().double()
    atol = tolerance * max(least_size, float(y.abs().max())) if tolerance and y.numel() else 0.0
    torch.testing.assert_close(x, y, rtol=tolerance, atol=atol, equal_nan=True)


def size_of_terms(name: str, arguments: Arguments) -> float:
    """Return what the terms of a product add up to in size; 1 for other operators.

    Many rows are multiplied with weights in bfloat16. Spoiled weights may be large and cancel out.
    """
    if not name.endswith("linear"):
        return 1.0
    x = arguments["x"].detach().float()
    weight = getattr(reference, name)(**(copied(arguments) | {"x": torch.eye(x.shape[-1])}))
    sizes = x.abs() @ weight.detach().abs().float()
    return max(1.0, float(sizes.max()) / 8) if sizes.numel() else 1.0


@pytest.mark.parametrize("name", sorted(ARGUMENTS))
@hostile
@given(data=st.data())
def test_it_computes_the_truth_or_refuses(name: str, data: st.DataObject) -> None:
    arguments = data.draw(spoiled(data.draw(ARGUMENTS[name]())))
    ours, truth = copied(arguments), copied(arguments)
    try:
        found = getattr(operators, name)(**ours)
    except (RuntimeError, IndexError, NotImplementedError):
        for (_, x), (_, y) in zip(_buffers(ours), _buffers(truth), strict=True):
            assert_same(x, y)  # a call that is refused has written nothing
        return
    if comparable(arguments):
        expected = getattr(reference, name)(**truth)
        for x, y in zip(_tensors(found), _tensors(expected), strict=True):
            assert_same(x, y, tolerance=3e-2, least_size=size_of_terms(name, arguments))
        for (_, x), (_, y) in zip(_buffers(ours), _buffers(truth), strict=True):
            assert_same(x, y)


def _tensors(result: Any) -> tuple[Tensor, ...]:
    return (result,) if isinstance(result, Tensor) else tuple(result)


@pytest.mark.parametrize("name", sorted(ARGUMENTS))
@hostile
@given(data=st.data())
def test_what_is_in_order_is_computed(name: str, data: st.DataObject) -> None:
    arguments = data.draw(ARGUMENTS[name]())
    try:
        getattr(operators, name)(**arguments)
    except RuntimeError as error:  # the sizes of some rows, and nothing else
        assert "multiple of" in str(error)  # noqa: PT017
