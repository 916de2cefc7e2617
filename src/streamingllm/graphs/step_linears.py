"""Products of a decode step: every weight is read once, sibling layers share one product."""

from __future__ import annotations

import weakref
from collections.abc import Hashable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from streamingllm.integration.linears import Product, active_products
from streamingllm.kernels.operators import linear
from streamingllm.kernels.packing import TILE_ROWS
from streamingllm.models.packed_linear import PackedLinear

# Layers that read the same activations in most families; one product for each set costs less than
# one for each layer, because every product ends with all threads waiting for the last.
SIBLINGS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))


def join_siblings(model: nn.Module) -> None:
    """Let sibling layers share one storage, one after the other, so that they can be read as one.

    Layers stay as they are otherwise: each weight is a view of its part.
    """
    for parent in model.modules():
        for layers in _siblings(parent):
            for name in _part_names(next(iter(layers.values()))):
                _share(list(layers.values()), name)


def _siblings(parent: nn.Module) -> list[dict[str, Any]]:
    """Return the sets of sibling layers, by name, whose weights have one layout."""
    sets: list[dict[str, Any]] = []
    for names in SIBLINGS:
        by_layout: dict[Hashable, dict[str, Any]] = {}
        for name in names:
            layer = getattr(parent, name, None)
            if (layout := _layout(layer)) is not None:
                by_layout.setdefault(layout, {})[name] = layer
        sets += [layers for layers in by_layout.values() if len(layers) > 1]
    return sets


def _layout(layer: Any) -> Hashable:
    """Name the layout of a layer's weights; None for what is no layer of ours or torch's."""
    if type(layer) is nn.Linear:
        return layer.in_features, layer.weight.dtype, layer.bias is None
    if isinstance(layer, PackedLinear):
        return layer.layout, layer.bias is None, layer.out_features % TILE_ROWS == 0
    return None


def _part_names(layer: Any) -> tuple[str, ...]:
    return tuple(layer.parts()) if isinstance(layer, PackedLinear) else ("weight",)


def _share(layers: list[Any], name: str) -> None:
    parts = [getattr(layer, name) for layer in layers]
    if _joined(parts) is not None:
        return
    whole = torch.cat([part.detach() for part in parts])
    for part, view in zip(parts, whole.split([len(part) for part in parts]), strict=True):
        part.data = view


def _joined(parts: list[Tensor]) -> Tensor | None:
    """Return the tensor that `parts` are consecutive slices of, or None."""
    first = parts[0]
    end = first.data_ptr()
    for part in parts:
        same_storage = part.untyped_storage().data_ptr() == first.untyped_storage().data_ptr()
        if part.data_ptr() != end or not same_storage or not part.is_contiguous():
            return None
        end += part.nbytes
    length = sum(len(part) for part in parts)
    return first.detach().as_strided((length, *first.shape[1:]), first.stride())


class _Joint:
    """One product that several layers take their parts of."""

    def __init__(self, product: Product, sizes: list[int]) -> None:
        self.product = product
        self.sizes = sizes
        self._last: tuple[weakref.ref[Tensor], tuple[Tensor, ...]] | None = None

    def part(self, number: int, x: Tensor) -> Tensor:
        """Return the output of layer `number`; the first to be asked computes all."""
        if self._last is None or self._last[0]() is not x:
            self._last = (weakref.ref(x), self.product(x).split(self.sizes, dim=-1))
        return self._last[1][number]


class StepLinears:
    """Products of a decode step, one for each linear layer of a model.

    Args:
        model: whose siblings have been joined.

    Attributes:
        tensors: every weight of a product, by name; the constants of the graph.
    """

    def __init__(self, model: nn.Module) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._products: dict[nn.Module, Product] = {}
        for path, parent in model.named_modules():
            for layers in _siblings(parent):
                self._add_joint(f"{path}.{'_'.join(layers)}", list(layers.values()))
        for path, layer in model.named_modules():
            if layer not in self._products and _layout(layer) is not None:
                self._products[layer] = self._product(path, [layer], layer.bias)

    def active(self) -> AbstractContextManager[None]:
        """Let the layers of an attached model compute these products in this thread."""
        return active_products(self._products)

    def _add_joint(self, path: str, layers: list[Any]) -> None:
        if any(_whole(layers, name) is None for name in _part_names(layers[0])):
            return
        biases = [layer.bias for layer in layers]
        bias = None if biases[0] is None else torch.cat([b.detach() for b in biases])
        joint = _Joint(self._product(path, layers, bias), [layer.out_features for layer in layers])
        for number, layer in enumerate(layers):
            self._products[layer] = partial(joint.part, number)

    def _product(self, path: str, layers: list[Any], bias: Tensor | None) -> Product:
        """Return the product with the weights of `layers`, whose names begin with `path`."""
        first = layers[0]
        names = {
            name: self._add(f"{path}.{name}", _whole(layers, name)) for name in _part_names(first)
        }
        if bias is not None:
            self._add(f"{path}.bias", bias.detach())
        out_features = sum(layer.out_features for layer in layers)

        def multiply(x: Tensor) -> Tensor:
            here = {name: self.tensors[key] for name, key in names.items()}
            if isinstance(first, PackedLinear):
                out = first.multiply(x, here, out_features)
            else:
                out = linear(x, here["weight"])
            return out if bias is None else out + self.tensors[f"{path}.bias"]

        return multiply

    def _add(self, name: str, tensor: Tensor | None) -> str:
        assert tensor is not None
        # Bits become numbers here, once, and not in every step.
        self.tensors[name] = tensor.view(torch.float16) if name.endswith("_bits") else tensor
        return name


def _whole(layers: list[Any], name: str) -> Tensor | None:
    return _joined([getattr(layer, name) for layer in layers])
