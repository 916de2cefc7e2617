"""Weights in four or eight bits, in groups of 32 along a row."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from streamingllm.checks import check_choice
from streamingllm.config import WEIGHT_QUANTIZATIONS
from streamingllm.kernels import native
from streamingllm.kernels.operators import quantized_linear
from streamingllm.kernels.packing import (
    GROUP_SIZE,
    TILE_ROWS,
    PackedWeight,
    pack_weight,
    unpack_weight,
)
from streamingllm.models.packed_linear import PackedLinear


class QuantizedLinear(PackedLinear):
    """A linear layer with weights in groups of 32; see `kernels.packing`.

    Half-precision scales are kept as their bits, so that casting a model leaves them alone.

    Args:
        packed: the weights.
        bias: [out_features], or None.
    """

    part_names = ("codes", "scale_bits", "minimum_bits")
    codes: Tensor
    scale_bits: Tensor
    minimum_bits: Tensor | None

    def __init__(self, packed: PackedWeight, bias: Tensor | None = None) -> None:
        super().__init__()
        minimums = packed.minimums
        self.register_buffer("codes", packed.codes)
        self.register_buffer("scale_bits", packed.scales.view(torch.int16))
        self.register_buffer(
            "minimum_bits", None if minimums is None else minimums.view(torch.int16)
        )
        self.in_features = packed.scales.shape[1] * GROUP_SIZE
        self.out_features = packed.codes.shape[0] * TILE_ROWS
        # Casting a model casts it, as in `nn.Linear`.
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    @property
    def num_bits(self) -> int:
        """Bits of a code."""
        return self.codes.shape[1] // self.scale_bits.shape[1]

    @property
    def weight(self) -> Tensor:
        """The weights that the codes stand for, float32, [out_features, in_features]."""
        return unpack_weight(*_halves(self.parts()))

    @property
    def weight_type(self) -> str:
        """Name the bits of the codes."""
        return f"int{self.num_bits}"

    @property
    def layout(self) -> Hashable:
        """Name bits, kind of groups and columns."""
        return self.num_bits, self.minimum_bits is None, self.in_features

    def multiply(self, x: Tensor, parts: Mapping[str, Tensor], out_features: int) -> Tensor:
        """Multiply activations with weights of this layout; see `PackedLinear.multiply`."""
        out: Tensor = quantized_linear(x, *_halves(parts))
        return out

    def extra_repr(self) -> str:
        """Describe the layer as `nn.Linear` does."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bits={self.num_bits}"
        )


def _halves(parts: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor | None]:
    minimums = parts.get("minimum_bits")
    return (
        parts["codes"],
        parts["scale_bits"].view(torch.float16),
        None if minimums is None else minimums.view(torch.float16),
    )


def check_quantization(quantization: str) -> str:
    """Return the word if it names a quantisation.

    Raises:
        ConfigError: it is not one of `WEIGHT_QUANTIZATIONS`.
    """
    check_choice("quantize", quantization, WEIGHT_QUANTIZATIONS)
    return quantization


def install_layers(model: PreTrainedModel, packed: dict[str, PackedWeight]) -> None:
    """Replace linear layers of a model by those that compute with packed weights."""
    for name, weight in packed.items():
        install_layer(model, name, weight)


def install_layer(model: nn.Module, name: str, weight: PackedWeight) -> QuantizedLinear:
    """Replace a linear layer of a model, packed or not, by one that computes with this weight."""
    native.load()
    parent, _, child = name.rpartition(".")
    layer = model.get_submodule(name)
    assert isinstance(layer, nn.Linear | QuantizedLinear)
    bias: Tensor | None = layer.bias
    packed_layer = QuantizedLinear(weight, None if bias is None else bias.detach())
    setattr(model.get_submodule(parent), child, packed_layer)
    return packed_layer


def quantize_weight(weight: Tensor, num_bits: int) -> tuple[PackedWeight, bool]:
    """Find codes and scales of a weight; tell whether they restore it bit-identically.

    Weights that were once blocks of GGUF's Q4_0, Q4_1 or Q8_0 are restored so. Those formats take a
    scale from a group's extremes, which the weights still show. Others are rounded to the nearest
    code.

    Args:
        weight: float32, [out_features, in_features].
        num_bits: 4 or 8.
    """
    groups = weight.unflatten(1, (-1, GROUP_SIZE))
    formats = (_eight_bits,) if num_bits == 8 else (_four_bits_symmetric, _four_bits_asymmetric)
    for read in formats:  # the last one is the most general
        codes, scales, minimums, restored = read(groups)
        is_exact = torch.equal(restored, groups)
        if is_exact:
            break
    return pack_weight(codes.flatten(1), scales, minimums, num_bits), is_exact


_Found = tuple[Tensor, Tensor, Tensor | None, Tensor]


def _eight_bits(groups: Tensor) -> _Found:
    """Q8_0: scale = greatest size / 127."""
    scales = (groups.abs().amax(-1) / 127).half()
    scale = scales.float()[..., None]
    codes = _nearest(groups, scale, -127, 127)
    return codes, scales, None, codes * scale


def _four_bits_asymmetric(groups: Tensor) -> _Found:
    """Q4_1: minimum, and scale = range / 15."""
    low, high = groups.amin(-1), groups.amax(-1)
    scales, minimums = ((high - low) / 15).half(), low.half()
    scale, minimum = scales.float()[..., None], minimums.float()[..., None]
    codes = _nearest(groups - minimum, scale, 0, 15)
    return codes, scales, minimums, codes * scale + minimum


def _four_bits_symmetric(groups: Tensor) -> _Found:
    """Q4_0: scale = the value of greatest size / -8; codes count from -8."""
    extreme = groups.gather(-1, groups.abs().argmax(-1, keepdim=True))
    scales = (extreme[..., 0] / -8).half()
    scale = scales.float()[..., None]
    codes = _nearest(groups, scale, -8, 7)
    return codes + 8, scales, None, codes * scale


def _nearest(values: Tensor, scale: Tensor, lowest: int, highest: int) -> Tensor:
    codes = (values / torch.where(scale == 0, 1.0, scale)).round_()
    return codes.clamp_(lowest, highest).to(torch.int8)


def quantization_of(model: nn.Module) -> str:
    """Name how a model's layers are quantised: the fewest bits among them, or `none`."""
    bits = [module.num_bits for module in model.modules() if isinstance(module, QuantizedLinear)]
    return f"int{min(bits)}" if bits else "none"
