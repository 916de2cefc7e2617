"""Linear layers that compute the product which the active pass chooses.

A layer's `forward` is shadowed once, when its model is attached. It looks up its product in a
context variable, which each thread sets for the length of a pass. Nothing on the model changes from
pass to pass, so passes of several threads do not meet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from functools import partial, update_wrapper
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from streamingllm.integration.adapters import Undo, override
from streamingllm.kernels import native
from streamingllm.kernels.limits import linear_unsupported_reason
from streamingllm.kernels.operators import linear

Product = Callable[[Tensor], Tensor]
Products = Mapping[nn.Module, Product]

_active: ContextVar[Products | None] = ContextVar("active_products", default=None)


@contextmanager
def active_products(products: Products) -> Iterator[None]:
    """Let linear layers compute `products` in this thread; layers without one compute their own.

    An inner call has no effect: the outermost pass chooses.
    """
    if _active.get() is not None:
        yield
        return
    token = _active.set(products)
    try:
        yield
    finally:
        _active.reset(token)


def active_product(layer: nn.Module) -> Product | None:
    """Return what the active pass computes in place of `layer`; None for the layer's own."""
    products = _active.get()
    return None if products is None else products.get(layer)


def shadow_linears(model: nn.Module) -> Undo:
    """Let every `nn.Linear` of a model look for its product; return what takes the shadows away.

    Subclasses are left alone, because their products are their own.
    """
    with ExitStack() as undo:
        for layer in model.modules():
            if type(layer) is nn.Linear:
                undo.callback(override(layer, "forward", _choosing(layer)))
        return undo.pop_all().close


def _choosing(layer: nn.Linear) -> Product:
    own_forward: Callable[..., Tensor] = layer.forward

    def forward(input: Tensor) -> Tensor:  # the parameter's name is torch's
        product = active_product(layer)
        return own_forward(input) if product is None else product(input)

    return update_wrapper(forward, own_forward)


def fused_products(decoder: nn.Module) -> Products:
    """Return the products of a decoder's layers that our operator computes faster than torch."""
    return {
        layer: partial(_fused, layer, layer.weight.dtype)
        for layer in decoder.modules()
        if isinstance(layer, nn.Linear) and _has_fused(layer)
    }


def can_fuse(decoder: nn.Module) -> bool:
    """Return whether a pass may compute fused products: in evaluation, without gradients."""
    return not (
        decoder.training
        or torch.is_grad_enabled()
        or torch.compiler.is_compiling()  # inductor does what is needed between products
        or not native.load()
    )


def _fused(layer: Any, dtype: torch.dtype, x: Tensor) -> Tensor:
    if not x.dtype == layer.weight.dtype == dtype:  # the model was cast meanwhile
        return F.linear(x, layer.weight, layer.bias)
    out: Tensor = linear(x, layer.weight)
    return out if layer.bias is None else out + layer.bias


def _has_fused(layer: Any) -> bool:
    kind: type = type(layer)
    if kind is not nn.Linear or "forward" in vars(layer):
        return False
    if linear_unsupported_reason(layer.weight.dtype, layer.weight.device) is not None:
        return False
    ask: Callable[[], Mapping[str, Any]] = getattr(torch.cpu, "get_capabilities", dict)
    # Torch adds a bias before it rounds, and knows the tiles of AMX, which are faster by far.
    keeps_own = layer.bias is not None or ask().get("amx_bf16", False)
    return not (layer.weight.dtype is torch.bfloat16 and keeps_own)
