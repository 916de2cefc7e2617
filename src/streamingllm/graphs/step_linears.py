"""Products of a decode step: every weight is read once, sibling layers share one product."""

from __future__ import annotations

import weakref
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from streamingllm.integration.linears import Product, active_products
from streamingllm.kernels.operators import linear, quantized_linear
from streamingllm.models.quantize import QuantizedLinear

# Layers that read the same activations in most families; one product for each set costs less than
# one for each layer, because every product ends with all threads waiting for the last.
SIBLINGS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))


def join_siblings(model: nn.Module) -> None:
    """Let sibling layers share one storage, one after the other, so that they can be read as one.

    Layers stay as they are otherwise: each weight is a view of its part.
    """
    for parent in model.modules():
        for names in SIBLINGS:
            layers = [getattr(parent, name, None) for name in names]
            if all(type(layer) is QuantizedLinear for layer in layers):
                _share(layers, ("codes", "scale_bits", "minimum_bits"))
            elif all(type(layer) is nn.Linear for layer in layers):
                _share(layers, ("weight",))


def _share(layers: list[Any], names: tuple[str, ...]) -> None:
    for name in names:
        parts = [getattr(layer, name) for layer in layers]
        if any(part is None for part in parts) or _joined(parts) is not None:
            continue
        if len({part.shape[1:] for part in parts}) != 1:
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
        done: set[nn.Module] = set()
        for path, parent in model.named_modules():
            for names in SIBLINGS:
                layers = [getattr(parent, name, None) for name in names]
                if self._add_joint(f"{path}.{'_'.join(names)}", layers):
                    done.update(layer for layer in layers if layer is not None)
        for path, layer in model.named_modules():
            if layer not in done and type(layer) in (nn.Linear, QuantizedLinear):
                self._products[layer] = self._product(path, [layer], layer.bias)

    def active(self) -> AbstractContextManager[None]:
        """Let the layers of an attached model compute these products in this thread."""
        return active_products(self._products)

    def _add_joint(self, path: str, layers: list[Any]) -> bool:
        kinds = {type(layer) for layer in layers}
        if len(kinds) != 1 or not kinds <= {nn.Linear, QuantizedLinear}:
            return False
        names = ("weight",) if kinds == {nn.Linear} else ("codes", "scale_bits")
        if any(_joined([getattr(layer, name) for layer in layers]) is None for name in names):
            return False
        biases = [layer.bias for layer in layers]
        if any(bias is None for bias in biases) and any(bias is not None for bias in biases):
            return False
        bias = None if biases[0] is None else torch.cat([b.detach() for b in biases])
        joint = _Joint(self._product(path, layers, bias), [layer.out_features for layer in layers])
        for number, layer in enumerate(layers):
            self._products[layer] = partial(joint.part, number)
        return True

    def _product(self, path: str, layers: list[Any], bias: Tensor | None) -> Product:
        """Return the product with the weights of `layers`, whose names begin with `path`."""
        names = {
            name: self._add(f"{path}.{name}", tensor)
            for name in ("weight", "codes", "scale_bits", "minimum_bits")
            if (tensor := _whole(layers, name)) is not None
        }
        if bias is not None:
            names["bias"] = self._add(f"{path}.bias", bias.detach())

        def multiply(x: Tensor) -> Tensor:
            here = {name: self.tensors[key] for name, key in names.items()}
            if "weight" in here:
                out: Tensor = linear(x, here["weight"])
            else:
                out = quantized_linear(
                    x, here["codes"], here["scale_bits"], here.get("minimum_bits")
                )
            return out + here["bias"] if "bias" in here else out

        return multiply

    def _add(self, name: str, tensor: Tensor) -> str:
        # Bits become numbers here, once, and not in every step.
        self.tensors[name] = tensor.view(torch.float16) if name.endswith("_bits") else tensor
        return name


def _whole(layers: list[Any], name: str) -> Tensor | None:
    if name == "weight" and isinstance(layers[0], QuantizedLinear):
        return None  # there it is a property that unpacks
    parts = [part for layer in layers if (part := getattr(layer, name, None)) is not None]
    return _joined(parts) if len(parts) == len(layers) else None
