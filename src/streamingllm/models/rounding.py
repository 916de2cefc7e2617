"""Choices of what becomes of linear layers: dense, in their own bits, or rounded."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor, nn
from transformers import PreTrainedModel

from streamingllm.errors import ModelLoadError
from streamingllm.kernels.packing import GROUP_SIZE, TILE_ROWS, PackedWeight, unpack_weight
from streamingllm.models.formats.stored import NotRepresentableError, StoredWeight
from streamingllm.models.quantize import quantize_weight

_SAFE_BITS = 8


def keep_dense(
    path: str, weight: Tensor, stored: StoredWeight | None, is_head: bool
) -> PackedWeight | None:
    """Pack nothing; see `one_by_one.Pack`."""
    return None


def keep_own_bits(
    path: str, weight: Tensor, stored: StoredWeight | None, is_head: bool
) -> PackedWeight | None:
    """Pack what the checkpoint stores, without loss; see `one_by_one.Pack`.

    Raises:
        ModelLoadError: no packed layout can hold it.
    """
    if stored is None:
        return None
    try:
        return stored.pack()
    except NotRepresentableError as reason:
        raise ModelLoadError(
            f"quantize='native' cannot hold {path}: {reason}; choose quantize='none' for its exact "
            "numbers in dtype, or int8 or int4 to round them"
        ) from reason


def squared_error(packed: PackedWeight, weight: Tensor) -> float:
    """Return the sum of squares of what packing has changed."""
    return float((unpack_weight(*packed.tensors) - weight).square().sum())


@dataclass
class Rounding:
    """Pack every linear layer in a number of bits, and add up what that changes.

    Args:
        num_bits: 4 or 8. The head gets 8 where 4 would lose something.
        is_provisional: give 8 bits to each layer that would be rounded, and note its name.

    Attributes:
        provisional: names of these layers.
        squared_error: of all rounded weights.
        squared_size: of the same weights before.
    """

    num_bits: int
    is_provisional: bool = False
    provisional: list[str] = field(default_factory=list, init=False)
    squared_error: float = field(default=0.0, init=False)
    squared_size: float = field(default=0.0, init=False)

    def __call__(
        self, path: str, weight: Tensor, stored: StoredWeight | None, is_head: bool
    ) -> PackedWeight | None:
        """Pack a layer; see `one_by_one.Pack`."""
        rows, columns = weight.shape
        if rows % TILE_ROWS or columns % GROUP_SIZE:
            return None
        packed, is_exact = self._pack(path, weight, stored, is_head)
        if not is_exact and path not in self.provisional:
            self.squared_error += squared_error(packed, weight)
        self.squared_size += float(weight.square().sum())
        return packed

    @property
    def relative_error(self) -> float:
        """Return the root of the squared error of all weights over their squared size."""
        return (self.squared_error / self.squared_size) ** 0.5 if self.squared_size else 0.0

    def _pack(
        self, path: str, weight: Tensor, stored: StoredWeight | None, is_head: bool
    ) -> tuple[PackedWeight, bool]:
        if (own := self._own_codes(stored)) is not None:
            return own, True
        packed, is_exact = quantize_weight(weight, self.num_bits)
        if self.is_provisional and not is_head and not is_exact:
            self.provisional.append(path)
            return quantize_weight(weight, _SAFE_BITS)
        if is_head and not is_exact:
            return quantize_weight(weight, _SAFE_BITS)
        return packed, is_exact

    def _own_codes(self, stored: StoredWeight | None) -> PackedWeight | None:
        """Return what the checkpoint stores, if it takes no more bits than are asked for."""
        if stored is None:
            return None
        try:
            own = stored.pack()
        except NotRepresentableError:
            return None
        return own if own.num_bits <= self.num_bits else None


def quantize_layers(model: PreTrainedModel, rounding: Rounding) -> dict[str, PackedWeight]:
    """Pack the weights of a model's linear layers, by name.

    Layers whose sizes do not fit groups of 32 and tiles of 16 are left out. The head is packed in
    eight bits where four would lose something: each of its errors meets the probabilities directly.

    Args:
        model: in float32, so that weights that came from GGUF blocks are found again exactly.
        rounding: packs each layer, and adds up what that changes.
    """
    head = model.get_output_embeddings()
    packed = {}
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear):
            weight = layer.weight.detach().float()
            if (found := rounding(name, weight, None, layer is head)) is not None:
                packed[name] = found
    return packed
