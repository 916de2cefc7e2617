"""The place of a GGUF file's tensors in the state dict of transformers."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from streamingllm.models.gguf.config import gguf_family
from streamingllm.models.gguf.family import GgufFamily, Place
from streamingllm.models.gguf.header import GgufHeader, GgufTensor
from streamingllm.models.gguf.metadata import ArchitectureMetadata

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
    def keeps_values(self) -> bool:
        """Tell whether a whole parameter has the values of the file, in whatever order."""
        place = self.place
        is_whole = place.part == (0, 1) and place.view is None and not place.transposed
        return is_whole and place.values is None and self.shift == 0.0

    @property
    def is_rows_of_linear(self) -> bool:
        """Tell whether the tensor has some of the rows of a linear layer, in their order."""
        place = self.place
        is_plain = place == Place(place.module, part=place.part) and self.shift == 0.0
        return is_plain and place.part[1] > 1 and self.name.endswith(".weight")

    def row_order(self, num_rows: int) -> Tensor | None:
        """Return which row of the file is each row of the parameter; None for the same order.

        Returns:
            LongTensor [num_rows], or None.
        """
        rule = self.place.rows
        return None if rule is None else rule(self.metadata, num_rows)

    def column_order(self, num_columns: int) -> Tensor | None:
        """Return which column of the file is each column of the parameter; None for the same."""
        rule = self.place.columns
        return None if rule is None else rule(self.metadata, num_columns)

    def stored_shape(self, parameter: Tensor, num_rows: int) -> torch.Size:
        """Return the shape that the tensor has in the file, except for dimensions of one entry.

        Args:
            parameter: that it goes to.
            num_rows: of the tensor, if it is not all of the parameter.
        """
        if self.place.into is not None:
            return torch.Size((num_rows, *parameter.shape[1:]))
        return self.part_of(parameter).shape

    def fill(self, parameter: Tensor, values: Tensor) -> None:
        """Write the values of the file into a parameter, or into the part that they are."""
        if (rows := self.row_order(values.shape[0])) is not None:
            values = values[rows]
        if (columns := self.column_order(values.shape[-1])) is not None:
            values = values[..., columns]
        if self.place.values is not None:
            values = self.place.values(values)
        values = values + self.shift if self.shift else values
        if self.place.into is not None:
            parameter[self.place.into(self.metadata, len(values))] = values.to(parameter.dtype)
        else:
            self.part_of(parameter).copy_(values)

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


def unstacked(header: GgufHeader) -> GgufHeader:
    """Return a header in which each matrix of a stack is a tensor of its own, `NAME.0.weight`."""
    stacks = {f"{name}.weight" for name in gguf_family(header).stacked}
    tensors: list[GgufTensor] = []
    for tensor in header.tensors:
        if tensor.name not in stacks or len(tensor.shape) < 3:
            tensors.append(tensor)
            continue
        count, stem = tensor.shape[0], tensor.name.removesuffix(".weight")
        step = tensor.num_bytes // count
        tensors += [
            replace(
                tensor,
                name=f"{stem}.{index}.weight",
                shape=tensor.shape[1:],
                offset=tensor.offset + index * step,
            )
            for index in range(count)
        ]
    return replace(header, tensors=tuple(tensors))


def tensor_targets(header: GgufHeader) -> dict[str, TensorTarget]:
    """Return where each tensor of a file goes, those that are no parameters left out.

    Raises:
        ModelLoadError: the file's architecture is not known.
    """
    family, metadata = gguf_family(header), ArchitectureMetadata(header)
    targets = {tensor.name: _target(family, metadata, tensor.name) for tensor in header.tensors}
    return {name: target for name, target in targets.items() if target is not None}


def _target(family: GgufFamily, metadata: ArchitectureMetadata, name: str) -> TensorTarget | None:
    found = _find(family, metadata, name)
    if found is None:
        return None
    prefix, place, stem, ending = found
    endings = {".weight": place.weight, ".bias": place.bias, "": ""}
    is_shifted = place.is_shifted and "norm" in stem and ending == ".weight"
    shift = family.norm_shift if is_shifted else 0.0
    return TensorTarget(prefix + place.module + endings[ending], place, metadata, shift)


def _find(
    family: GgufFamily, metadata: ArchitectureMetadata, name: str
) -> tuple[str, Place, str, str] | None:
    in_block = _IN_BLOCK.fullmatch(name)
    if in_block is not None:
        number, stem, ending = in_block.groups()
        known, prefix = family.names_in(metadata).get(stem), f"{family.layers}.{number}."
        layer = int(number)
        if layer >= metadata.num_layers or family.is_unread(metadata, layer, stem):
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
