"""The protocol of linear layers whose weights are packed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from streamingllm.integration.linears import active_product

_GPU_UNPACKS_FROM_ROWS = 48


class PackedLinear(nn.Module, ABC):
    """Multiply activations with packed weights.

    Attributes:
        part_names: buffers that the weights lie in; along dimension 0 lie tiles of rows.
        in_features: columns of the weight.
        out_features: rows of the weight.
        bias: [out_features], or None.
    """

    part_names: ClassVar[tuple[str, ...]]
    in_features: int
    out_features: int
    bias: Tensor | None

    @property
    @abstractmethod
    def weight(self) -> Tensor:
        """The weights that the parts stand for, float32, [out_features, in_features]."""

    @property
    @abstractmethod
    def weight_type(self) -> str:
        """Name the type of the weights, such as int4 or Q6_K."""

    @property
    @abstractmethod
    def layout(self) -> Hashable:
        """Name the layout: weights of one layout and whole tiles can be read as one."""

    @abstractmethod
    def multiply(self, x: Tensor, parts: Mapping[str, Tensor], out_features: int) -> Tensor:
        """Multiply activations with weights of this layout, without a bias.

        Args:
            x: [..., in_features].
            parts: by the names of `part_names`; those that the layer has.
            out_features: rows of these weights.
        """

    def parts(self) -> dict[str, Tensor]:
        """Return the buffers that the weights lie in, by name; those that there are."""
        named = {name: getattr(self, name) for name in self.part_names}
        return {name: part for name, part in named.items() if part is not None}

    def forward(self, x: Tensor) -> Tensor:
        """Multiply activations [..., in_features]; an active pass may choose the product."""
        product = active_product(self)
        if product is not None:
            return product(x)
        is_large = x.numel() >= _GPU_UNPACKS_FROM_ROWS * self.in_features
        needs_gradient = x.requires_grad and torch.is_grad_enabled()
        if needs_gradient or (is_large and x.device.type != "cpu"):
            return F.linear(x, self.weight.to(x.dtype), self.bias)
        out = self.multiply(x, self.parts(), self.out_features)
        return out if self.bias is None else out + self.bias
