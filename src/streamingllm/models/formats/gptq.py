"""Read GPTQ: codes in columns of words, zero points, and half-precision scales of groups.

Source: https://github.com/ModelCloud/GPTQModel and its forerunner AutoGPTQ. `qweight`
[in_features * bits / 32, out_features], `qzeros` [groups, out_features * bits / 32], `scales`
[groups, out_features], `g_idx` [in_features]. Format `gptq` stores zero points less one, and
`gptq_v2` as they are.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from streamingllm.models.formats.base import Settings, StoredTensor, refused
from streamingllm.models.formats.bits import unpack_words
from streamingllm.models.formats.stored import Grid
from streamingllm.models.shards import Shards

_PARTS = ("qweight", "qzeros", "scales", "g_idx")
_BITS = (2, 4, 8)
_FORMATS = ("gptq", "gptq_v2")


def gptq_weights(shards: Shards, settings: Settings) -> dict[str, StoredTensor]:
    """Find the weights of a GPTQ checkpoint; see `WeightFormat`."""
    num_bits, layout = settings.get("bits"), settings.get("checkpoint_format", "gptq")
    if num_bits not in _BITS:
        raise refused(shards.folder, "bits", num_bits, f"is not among {_BITS}")
    if layout not in _FORMATS:
        raise refused(shards.folder, "checkpoint_format", layout, f"is not among {_FORMATS}")
    found = {}
    for name in shards.names:
        layer, _, part = name.rpartition(".")
        if part == "qweight":
            parts = tuple(n for p in _PARTS if (n := f"{layer}.{p}") in shards)
            read = partial(_read, shards, layer, num_bits, layout == "gptq")
            found[f"{layer}.weight"] = StoredTensor(parts, read, f"gptq {num_bits}-bit")
    return found


def _read(shards: Shards, layer: str, num_bits: int, zeros_less_one: bool) -> Grid:
    codes = unpack_words(shards.read(f"{layer}.qweight").mT.contiguous(), num_bits)
    words = shards.read(f"{layer}.qzeros")
    if zeros_less_one:
        # One is added to whole words: a zero point of 0 was stored with a borrow.
        ones = sum(1 << shift for shift in range(0, 32, num_bits))
        words = (words.to(torch.int64) + ones).to(torch.int32)
    zeros = unpack_words(words, num_bits).mT.contiguous()
    scales = shards.read(f"{layer}.scales").mT.contiguous()
    name = f"{layer}.g_idx"
    order = _scattered(shards.read(name), scales.shape[1]) if name in shards else None
    return Grid(codes, scales, zeros, group_of_column=order)


def _scattered(group_of_column: Tensor, num_groups: int) -> Tensor | None:
    """Return the groups of columns, or None if they are runs of equal length."""
    runs = torch.arange(len(group_of_column)) // (len(group_of_column) // num_groups)
    return None if torch.equal(group_of_column.long(), runs) else group_of_column.long()
