"""What some modules of a model compute, faster: equal operators that take their place in a pass.

Which modules these are is found by trial, class by class: what they compute on a few numbers must
be what the plain operator computes, to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial, update_wrapper
from typing import Any

import torch
from torch import Tensor, nn

from streamingllm.attention.forward_plan import active_plan
from streamingllm.kernels import native, reference
from streamingllm.kernels.operators import dense_linear, rms_norm, swish_gate

Forward = Callable[[Tensor], Tensor]
_DTYPES = (torch.float32, torch.bfloat16)
_DIM_MULTIPLE = 16
_TRIAL_ROWS = 4


def stand_ins(decoder: nn.Module) -> Iterator[tuple[nn.Module, Forward]]:
    """Yield the modules of a decoder that have a stand-in, each with its `forward`.

    It computes in passes of streaming caches, in evaluation and without gradients; elsewhere the
    module's own does.
    """
    like = next(decoder.parameters())
    if like.device.type != "cpu":
        return
    tried: dict[type[nn.Module], bool] = {}

    def is_equal(module: nn.Module, trial: Callable[[Any, Tensor], bool]) -> bool:
        kind = type(module)
        if kind not in tried:
            tried[kind] = _passes(trial, module, like)
        return tried[kind]

    for module in decoder.modules():
        if type(module) is nn.Linear and module.weight.dtype is torch.float32:
            yield module, _or_own(module, partial(_linear, module), (torch.float32,))
        elif _is_rms_norm(module) and is_equal(module, _try_rms_norm):
            dtypes = tuple(dtype for dtype in _DTYPES if dtype is module.weight.dtype)
            yield module, _or_own(module, partial(_rms_norm, module), dtypes)
        elif _is_gated(module) and is_equal(module, _try_gated):
            yield module, _or_own(module, partial(_gated, module), _DTYPES)


def _or_own(module: nn.Module, faster: Forward, dtypes: tuple[torch.dtype, ...]) -> Forward:
    """Return a `forward` that computes `faster` what the module's own computes, where it can."""
    own_forward: Callable[..., Tensor] = module.forward

    def forward(*args: Any, **kwargs: Any) -> Tensor:
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
    out: Tensor = dense_linear(x, layer.weight)
    return out if layer.bias is None else out + layer.bias


def _is_rms_norm(module: Any) -> bool:
    if not isinstance(getattr(module, "variance_epsilon", None), float):
        return False
    weight = getattr(module, "weight", None)
    is_row = isinstance(weight, Tensor) and weight.dim() == 1
    return is_row and module.weight.shape[0] % _DIM_MULTIPLE == 0


def _rms_norm(module: Any, x: Tensor) -> Tensor:
    out: Tensor = rms_norm(x, module.weight, module.variance_epsilon)
    return out


def _try_rms_norm(module: Any, like: Tensor) -> bool:
    # In half precision, and with other weights than its own, which may all be 1.
    dim = len(module.weight)
    weight = torch.linspace(0.3, 1.7, dim, device=like.device).bfloat16()
    x = torch.linspace(-5.0, 3.0, _TRIAL_ROWS * dim, device=like.device).bfloat16()
    x = x.view(_TRIAL_ROWS, dim)
    own = torch.func.functional_call(module, {"weight": weight}, (x,))
    return torch.equal(own, reference.rms_norm(x, weight, module.variance_epsilon))


def _is_gated(module: Any) -> bool:
    up = getattr(module, "up_proj", None)
    return (
        all(hasattr(module, name) for name in ("gate_proj", "down_proj", "act_fn"))
        and getattr(up, "out_features", 1) % _DIM_MULTIPLE == 0
    )


def _gated(module: Any, x: Tensor) -> Tensor:
    gated = swish_gate(module.gate_proj(x), module.up_proj(x))
    out: Tensor = module.down_proj(gated)
    return out


def _try_gated(module: Any, like: Tensor) -> bool:
    x = torch.linspace(-2.0, 3.0, module.up_proj.in_features, dtype=like.dtype, device=like.device)
    gated = reference.swish_gate(module.gate_proj(x[None]), module.up_proj(x[None]))
    return torch.equal(module.forward(x[None]), module.down_proj(gated))


def _passes(trial: Callable[[Any, Tensor], bool], module: nn.Module, like: Tensor) -> bool:
    try:
        with torch.no_grad():
            return trial(module, like)
    except (AttributeError, TypeError, RuntimeError):  # it is something else by the same names
        return False
