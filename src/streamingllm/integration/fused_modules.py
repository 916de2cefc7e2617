"""What some modules of a model compute, faster: equal operators that take their place in a pass.

Which modules these are is found by trial: what they compute on a few numbers must be what the plain
operator computes, to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial, update_wrapper
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn

from streamingllm.attention.forward_plan import active_plan
from streamingllm.integration.adapters import override
from streamingllm.kernels import native, reference
from streamingllm.kernels.operators import linear, rms_norm, rotate, swish_gate
from streamingllm.positions.rope import can_turn

Forward = Callable[..., Any]
_DTYPES = (torch.float32, torch.bfloat16)
_DIM_MULTIPLE = 16
_TRIAL_ROWS = 4
_ROTATION = "apply_rotary_pos_emb"  # the name by which transformers' attention calls it


def fused_modules(decoder: nn.Module) -> Iterator[tuple[nn.Module, Forward]]:
    """Yield the modules of a decoder that have a stand-in, each with its `forward`.

    It computes in passes of streaming caches, in evaluation and without gradients; elsewhere the
    module's own does.
    """
    if next(decoder.parameters()).device.type != "cpu":
        return
    for module in decoder.modules():
        if dtypes := _dtypes_of_product(module):
            yield module, _or_own(module, partial(_linear, module), dtypes)
        elif _passes(_is_rms_norm, module):
            dtypes = tuple(dtype for dtype in _DTYPES if dtype is module.weight.dtype)
            yield module, _or_own(module, partial(_rms_norm, module), dtypes)
        elif _passes(_is_swish_gate, module):
            yield module, _or_own(module, partial(_gated, module), _DTYPES)
        elif _passes(_rotates_halves, module):
            yield module, _with_rotation(module)


def _or_own(module: nn.Module, faster: Forward, dtypes: tuple[torch.dtype, ...]) -> Forward:
    """Return a `forward` that computes `faster` what the module's own computes, where it can."""
    own_forward: Callable[..., Tensor] = module.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        if (
            active_plan.get() is None
            or len(args) != 1
            or kwargs
            or args[0].dtype not in dtypes
            or module.training
            or torch.is_grad_enabled()
            or torch.compiler.is_compiling()  # inductor does what is needed between products
            or not native.load()
        ):
            return own_forward(*args, **kwargs)
        return faster(args[0])

    return update_wrapper(forward, own_forward)


def _linear(layer: Any, x: Tensor) -> Tensor:
    out: Tensor = linear(x, layer.weight)
    return out if layer.bias is None else out + layer.bias


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


def _dtypes_of_product(layer: Any) -> tuple[torch.dtype, ...]:
    """Return in which data types a layer's product has a stand-in."""
    kind: type = type(layer)
    if kind is not nn.Linear or layer.weight.dtype not in _DTYPES:
        return ()
    ask: Callable[[], Mapping[str, Any]] = getattr(torch.cpu, "get_capabilities", dict)
    # Torch adds a bias before it rounds, and knows the tiles of AMX, which are faster by far.
    keeps_own = layer.bias is not None or ask().get("amx_bf16", False)
    if layer.weight.dtype is torch.bfloat16 and keeps_own:
        return ()
    return (layer.weight.dtype,)


def _is_rms_norm(module: Any) -> bool:
    (dim,), epsilon = module.weight.shape, module.variance_epsilon
    if dim % _DIM_MULTIPLE:
        return False
    # With other weights than its own, which may all be 1.
    weight, x = _trial_numbers(dim)[0].abs(), _trial_numbers(dim)
    own = torch.func.functional_call(module, {"weight": weight}, (x,))
    return torch.equal(own, reference.rms_norm(x, weight, epsilon))


def _is_swish_gate(module: Any) -> bool:
    if module.up_proj.out_features % _DIM_MULTIPLE:
        return False
    # With products that cost nothing and hide nothing.
    x = _trial_numbers(_DIM_MULTIPLE)
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
    q, k = _trial_numbers(96).view(1, _TRIAL_ROWS, 3, 32).transpose(1, 2).split([2, 1], dim=1)
    angles = torch.linspace(0.0, 3.0, 16 * _TRIAL_ROWS, device="cpu").view(1, _TRIAL_ROWS, 16)
    cos, sin = angles.cos().bfloat16(), angles.sin().bfloat16()
    tables = [torch.cat((table, table), dim=-1) for table in (cos, sin)]
    own = forward.__globals__[_ROTATION](q, k, *tables)
    ours = (reference.rotate(x, cos[:, None], sin[:, None]) for x in (q, k))
    return all(torch.equal(*pair) for pair in zip(own, ours, strict=True))


def _trial_numbers(dim: int) -> Tensor:
    """Return a few rows in half precision, which shows where a module rounds."""
    numbers = torch.linspace(-5.0, 3.0, _TRIAL_ROWS * dim, device="cpu")
    return numbers.bfloat16().view(_TRIAL_ROWS, dim)


def _passes(trial: Callable[[Any], bool], module: nn.Module) -> bool:
    try:
        with torch.no_grad():
            return trial(module)
    except Exception:  # whatever it is, it is something else
        return False
