"""A compiler is told of each operator's result what the result is: shape, strides and dtype."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from streamingllm.kernels import native, operators, reference
from tests.kernels.hostile import ARGUMENTS

pytestmark = pytest.mark.skipif(not native.load(), reason="needs the native kernels")


def transposed_in_memory(x: Any) -> Any:
    """The same numbers, token by token in memory where there are four dimensions."""
    if isinstance(x, Tensor) and x.ndim == 4 and x.is_floating_point():
        return x.transpose(1, 2).contiguous().transpose(1, 2)
    return x


@pytest.mark.parametrize("implementation", ["C++", "plain truth"])
@pytest.mark.parametrize("name", sorted(ARGUMENTS))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_results_are_as_announced(name: str, implementation: str, data: st.DataObject) -> None:
    arguments = data.draw(ARGUMENTS[name]())
    if name != "decode_attention" and data.draw(st.booleans()):
        arguments = {key: transposed_in_memory(x) for key, x in arguments.items()}
    operator = getattr(operators, name)
    compute = operator if implementation == "C++" else getattr(reference, name)
    try:
        found = compute(**arguments)
    except RuntimeError:
        return  # a size that kernels do not take
    with FakeTensorMode() as mode:
        fakes = {
            key: mode.from_tensor(x) if isinstance(x, Tensor) else x for key, x in arguments.items()
        }
        announced = operator(**fakes)
    for x, y in zip(_tensors(found), _tensors(announced), strict=True):
        assert x.dtype is y.dtype
        assert x.shape == y.shape
        if x.numel():
            assert _strides(x) == _strides(y)


def _tensors(result: Any) -> tuple[Tensor, ...]:
    return (result,) if isinstance(result, Tensor) else tuple(result)


def _strides(x: Tensor) -> list[int]:
    """The strides that matter: those of dimensions longer than 1."""
    return [stride for size, stride in zip(x.shape, x.stride(), strict=True) if size > 1]
