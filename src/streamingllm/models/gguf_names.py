"""The place of a GGUF file's tensors in the state dict of transformers."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor

from streamingllm.models.gguf_config import gguf_family
from streamingllm.models.gguf_header import GgufHeader
from streamingllm.models.gguf_metadata import ArchitectureMetadata

_IN_BLOCK = re.compile(r"blk\.(\d+)\.(.+?)(\.weight|\.bias|)")
_OUTSIDE = re.compile(r"(.+?)(\.weight|\.bias|)")


@dataclass(frozen=True)
class TensorTarget:
    """Say where a tensor goes and how it changes on the way.

    Args:
        name: in the state dict.
        interleaved_heads: heads whose rows lie in llama.cpp's order of rotation, in which a row of
            the first half of a head is followed by that of the second half; 0 for plain rows.
        shift: added to each value.
    """

    name: str
    interleaved_heads: int = 0
    shift: float = 0.0

    @property
    def is_as_stored(self) -> bool:
        """Whether values and rows are taken over unchanged."""
        return not self.interleaved_heads and self.shift == 0.0

    def row_order(self, num_rows: int) -> Tensor | None:
        """Return which row of the file is each row of the parameter; None for the same order.

        Returns:
            LongTensor [num_rows], or None.
        """
        if not self.interleaved_heads:
            return None
        shape = (self.interleaved_heads, num_rows // self.interleaved_heads // 2, 2)
        return torch.arange(num_rows).reshape(shape).transpose(1, 2).flatten()

    def convert(self, values: Tensor) -> Tensor:
        """Return the parameter's values from those of the file, in the shape of the parameter."""
        order = self.row_order(values.shape[0])
        ordered = values if order is None else values[order]
        return ordered + self.shift if self.shift else ordered


def tensor_target(header: GgufHeader, name: str) -> TensorTarget | None:
    """Return where a tensor of a file goes; None if it is no parameter of the model.

    Raises:
        ModelLoadError: the file's architecture is not known.
    """
    family, metadata = gguf_family(header), ArchitectureMetadata(header)
    in_block = _IN_BLOCK.fullmatch(name)
    if in_block is None:
        found = _OUTSIDE.fullmatch(name)
        if found is None or found[1] not in family.outer:
            return None
        stem, module, ending = found[1], family.outer[found[1]], found[2]
    else:
        stem, ending = in_block[2], in_block[3]
        if stem not in family.names or int(in_block[1]) >= metadata.num_layers:
            return None
        module = f"{family.layers}.{in_block[1]}.{family.names[stem]}"
    shift = family.norm_shift if "norm" in stem and ending == ".weight" else 0.0
    heads = 0
    if stem in family.interleaved:
        key = "attention.head_count" if stem == "attn_q" else "attention.head_count_kv"
        heads = metadata.integer(key, metadata.integer("attention.head_count"))
    return TensorTarget(module + ending, heads, shift)
