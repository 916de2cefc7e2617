"""The place of a GGUF file's tensors in the state dict of transformers."""

from __future__ import annotations

import re
from dataclasses import dataclass

from torch import Tensor

from streamingllm.models.gguf_config import gguf_family
from streamingllm.models.gguf_family import GgufFamily, Place
from streamingllm.models.gguf_header import GgufHeader
from streamingllm.models.gguf_metadata import ArchitectureMetadata

_IN_BLOCK = re.compile(r"blk\.(\d+)\.(.+?)(\.weight|\.bias|)")
_OUTSIDE = re.compile(r"(.+?)(\.weight|\.bias|)")


@dataclass(frozen=True)
class TensorTarget:
    """Say which parameter a tensor goes to, and how it changes on the way.

    Args:
        name: of the parameter in the state dict.
        place: part of the parameter.
        metadata: of the file, which rules for rows read.
        shift: added to each value.
    """

    name: str
    place: Place
    metadata: ArchitectureMetadata
    shift: float = 0.0

    @property
    def is_as_stored(self) -> bool:
        """Tell whether the parameter is the tensor, value by value."""
        place = self.place
        plain = place.rows is None and not place.transposed and place.part[1] == 1
        return plain and self.shift == 0.0

    def row_order(self, num_rows: int) -> Tensor | None:
        """Return which row of the file is each row of the parameter; None for the same order.

        Returns:
            LongTensor [num_rows], or None.
        """
        rule = self.place.rows
        return None if rule is None else rule(self.metadata, num_rows)

    def fill(self, parameter: Tensor, values: Tensor) -> None:
        """Write the values of the file into a parameter, or into the part that they are."""
        order = self.row_order(values.shape[0])
        ordered = values if order is None else values[order]
        self.part_of(parameter).copy_(ordered + self.shift if self.shift else ordered)

    def part_of(self, parameter: Tensor) -> Tensor:
        """Return a view of the part of a parameter that the tensor is, its rows as in the file."""
        index, count = self.place.part
        if self.place.view is not None:
            return self.place.view(self.metadata, parameter)
        is_bias = self.name.endswith("bias")
        turned = self.place.transposed and not is_bias
        view = parameter.transpose(-1, -2) if turned else parameter
        if count == 1:
            return view
        axis = -1 if is_bias else -2
        if self.place.alternates:
            return view[..., index::count] if axis == -1 else view[..., index::count, :]
        return view.chunk(count, axis)[index]


def tensor_target(header: GgufHeader, name: str) -> TensorTarget | None:
    """Return where a tensor of a file goes; None if it is no parameter of the model.

    Raises:
        ModelLoadError: the file's architecture is not known.
    """
    return _target(gguf_family(header), ArchitectureMetadata(header), name)


def tensor_targets(header: GgufHeader) -> dict[str, TensorTarget]:
    """Return where each tensor of a file goes, those that are no parameters left out."""
    family, metadata = gguf_family(header), ArchitectureMetadata(header)
    targets = {tensor.name: _target(family, metadata, tensor.name) for tensor in header.tensors}
    return {name: target for name, target in targets.items() if target is not None}


def _target(family: GgufFamily, metadata: ArchitectureMetadata, name: str) -> TensorTarget | None:
    found = _find(family, metadata, name)
    if found is None:
        return None
    prefix, place, stem, ending = found
    endings = {".weight": place.weight, ".bias": place.bias, "": ""}
    shift = family.norm_shift if "norm" in stem and ending == ".weight" else 0.0
    return TensorTarget(prefix + place.module + endings[ending], place, metadata, shift)


def _find(
    family: GgufFamily, metadata: ArchitectureMetadata, name: str
) -> tuple[str, Place, str, str] | None:
    in_block = _IN_BLOCK.fullmatch(name)
    if in_block is not None:
        number, stem, ending = in_block.groups()
        known, prefix = family.names_in(metadata).get(stem), f"{family.layers}.{number}."
        if int(number) >= metadata.num_layers:
            return None
    else:
        outside = _OUTSIDE.fullmatch(name)
        if outside is None:
            return None
        stem, ending = outside.groups()
        known, prefix = family.outer.get(stem), ""
    if known is None:
        return None
    return prefix, Place(known) if isinstance(known, str) else known, stem, ending
