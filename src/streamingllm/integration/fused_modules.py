"""Fused modules: operators that replace modules of a model in a pass of a streaming cache.

A check on a few numbers finds the modules that an operator can replace: both results must be
bit-identical.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache, partial, update_wrapper
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn

from streamingllm.attention.forward_plan import active_plan
from streamingllm.integration.adapters import override
from streamingllm.kernels import reference
from streamingllm.kernels.bounds import ROW_MULTIPLE
from streamingllm.kernels.limits import rows_unsupported_reason
from streamingllm.kernels.operators import rms_norm, rotate, swish_gate
from streamingllm.positions.rope import can_turn

Forward = Callable[..., Any]
_CHECK_ROWS = 4
_ROTATION = "apply_rotary_pos_emb"  # the name by which transformers' attention calls it


def fused_modules(decoder: nn.Module) -> Iterator[tuple[nn.Module, Forward]]:
    """Yield the modules of a decoder that can be replaced, each with its fused `forward`.

    The fused `forward` computes in passes of streaming caches, in evaluation and without gradients.
    In other passes it calls the module's own.
    """
    if next(decoder.parameters()).device.type != "cpu":
        return
    for module in decoder.modules():
        if _passes(_is_rms_norm, module):
            weight: Any = module.weight
            yield module, _or_own(module, partial(_rms_norm, module), len(weight), weight.dtype)
        elif _passes(_is_swish_gate, module):
            gate: Any = module.up_proj
            yield module, _or_own(module, partial(_gated, module), gate.out_features)
        elif _passes(_rotates_halves, module):
            yield module, _with_rotation(module)


def _or_own(
    module: nn.Module, fused: Forward, dim: int, dtype: torch.dtype | None = None
) -> Forward:
    """Return a `forward` that calls `fused` where it can, else the module's own.

    Args:
        module: whose `forward` it is.
        fused: computes the same by an operator.
        dim: numbers of a row that the operator takes.
        dtype: of the activations that it takes, None for any that has a kernel.
    """
    own_forward: Callable[..., Tensor] = module.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        if (
            active_plan.get() is None
            or len(args) != 1
            or kwargs
            or (dtype is not None and args[0].dtype is not dtype)
            or module.training
            or torch.is_grad_enabled()
            or torch.compiler.is_compiling()  # inductor does what is needed between products
            or rows_unsupported_reason(dim, args[0].dtype, args[0].device) is not None
        ):
            return own_forward(*args, **kwargs)
        return fused(args[0])

    return update_wrapper(forward, own_forward)


def _rms_norm(module: Any, x: Tensor) -> Tensor:
    out: Tensor = rms_norm(x, module.weight, module.variance_epsilon)
    return out


def _gated(module: Any, x: Tensor) -> Tensor:
    gated = swish_gate(module.gate_proj(x), module.up_proj(x))
    out: Tensor = module.down_proj(gated)
    return out


def _with_rotation(module: nn.Module) -> Forward:
    """Return the module's own `forward`, in which the name of the rotation means ours."""
    own: Any = type(module).forward
    names = {**own.__globals__, _ROTATION: partial(_rotated, own.__globals__[_ROTATION])}
    forward = FunctionType(own.__code__, names, own.__name__, own.__defaults__, own.__closure__)
    forward.__kwdefaults__ = own.__kwdefaults__
    return MethodType(update_wrapper(forward, own), module)


def _rotated(
    own: Callable[..., tuple[Tensor, Tensor]], q: Tensor, k: Tensor, *args: Any, **kwargs: Any
) -> tuple[Tensor, Tensor]:
    is_known = len(args) == 2 and not kwargs and all(table.ndim == 3 for table in args)
    if is_known and active_plan.get() is not None:
        cos, sin = (table[:, None, :, : table.shape[-1] // 2] for table in args)
        is_whole = 2 * cos.shape[-1] == q.shape[-1] == k.shape[-1]
        if is_whole and can_turn(q, cos) and can_turn(k, sin) and not torch.is_grad_enabled():
            return rotate(q, cos, sin), rotate(k, cos, sin)
    return own(q, k, *args, **kwargs)


def _is_rms_norm(module: Any) -> bool:
    epsilon = module.variance_epsilon  # before the weight, which packed layers unpack to show it
    (dim,) = module.weight.shape
    if dim % ROW_MULTIPLE:
        return False
    # With other weights than its own, which may all be 1.
    weight, x = _check_numbers(dim)[0].abs(), _check_numbers(dim)
    own = torch.func.functional_call(module, {"weight": weight}, (x,))
    return torch.equal(own, reference.rms_norm(x, weight, epsilon))


def _is_swish_gate(module: Any) -> bool:
    if module.up_proj.out_features % ROW_MULTIPLE:
        return False
    # With products that cost nothing and hide nothing.
    x = _check_numbers(ROW_MULTIPLE)
    with ExitStack() as undo:
        undo.callback(override(module.gate_proj, "forward", lambda x: x))
        undo.callback(override(module.up_proj, "forward", lambda x: x.flip(-1)))
        undo.callback(override(module.down_proj, "forward", lambda x: x))
        own = module(x)
    return torch.equal(own, reference.swish_gate(x, x.flip(-1)))


def _rotates_halves(module: Any) -> bool:
    forward = type(module).forward
    if _ROTATION not in forward.__code__.co_names or "forward" in vars(module):
        return False
    return _is_rotation_of_halves(forward.__globals__[_ROTATION])


@cache
def _is_rotation_of_halves(rotation: Callable[..., tuple[Tensor, Tensor]]) -> bool:
    q, k = _check_numbers(96).view(1, _CHECK_ROWS, 3, 32).transpose(1, 2).split([2, 1], dim=1)
    angles = torch.linspace(0.0, 3.0, 16 * _CHECK_ROWS, device="cpu").view(1, _CHECK_ROWS, 16)
    cos, sin = angles.cos().bfloat16(), angles.sin().bfloat16()
    tables = [torch.cat((table, table), dim=-1) for table in (cos, sin)]
    own = rotation(q, k, *tables)
    ours = (reference.rotate(x, cos[:, None], sin[:, None]) for x in (q, k))
    return all(torch.equal(*pair) for pair in zip(own, ours, strict=True))


def _check_numbers(dim: int) -> Tensor:
    """Return a few rows in half precision, which shows where a module rounds."""
    numbers = torch.linspace(-5.0, 3.0, _CHECK_ROWS * dim, device="cpu")
    return numbers.bfloat16().view(_CHECK_ROWS, dim)


def _passes(check: Callable[[Any], bool], module: nn.Module) -> bool:
    try:
        with torch.no_grad():
            return check(module)
    except Exception:  # another kind of module fails in any way
        return False
