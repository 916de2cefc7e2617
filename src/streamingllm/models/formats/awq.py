"""Read AWQ: codes in rows of words whose nibbles are interleaved, zero points, scales of groups.

Source: https://github.com/casper-hansen/AutoAWQ, WQLinear_GEMM. `qweight`
[in_features, out_features / 8], `qzeros` [groups, out_features / 8], `scales`
[groups, out_features]; nibble i of a word belongs to column ORDER[i].
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from streamingllm.models.formats.base import Settings, StoredTensor, refused
from streamingllm.models.formats.bits import unpack_words
from streamingllm.models.formats.stored import Grid
from streamingllm.models.shards import Shards

ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
_PARTS = ("qweight", "qzeros", "scales")


def awq_weights(shards: Shards, settings: Settings) -> dict[str, StoredTensor]:
    """Find the weights of an AWQ checkpoint; see `WeightFormat`."""
    num_bits = settings.get("bits", settings.get("w_bit", 4))
    version = str(settings.get("version", settings.get("format", "gemm"))).lower()
    if num_bits != 4:
        raise refused(shards.folder, "bits", num_bits, "is not 4")
    if version != "gemm":
        raise refused(shards.folder, "version", version, "is not 'gemm'")
    found = {}
    for name in shards.names:
        layer, _, part = name.rpartition(".")
        if part == "qweight":
            parts = tuple(n for p in _PARTS if (n := f"{layer}.{p}") in shards)
            found[f"{layer}.weight"] = StoredTensor(
                parts, partial(_read, shards, layer), "awq 4-bit"
            )
    return found


def _read(shards: Shards, layer: str) -> Grid:
    codes, zeros = (_columns(shards.read(f"{layer}.{part}")) for part in ("qweight", "qzeros"))
    return Grid(codes, shards.read(f"{layer}.scales").mT.contiguous(), zeros)


def _columns(words: Tensor) -> Tensor:
    """Return the codes of words [n, out_features / 8] as int32, [out_features, n]."""
    nibbles = unpack_words(words, 4).unflatten(1, (-1, len(ORDER)))
    ordered = torch.empty_like(nibbles)
    ordered[..., list(ORDER)] = nibbles
    return ordered.flatten(1).mT.contiguous()
