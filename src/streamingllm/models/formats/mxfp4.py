"""Read MXFP4 of gpt-oss: experts in 4-bit floats, 32 of which share a power of two.

Source: OCP Microscaling Formats specification 1.0 (E2M1 elements, E8M0 scales);
https://github.com/openai/gpt-oss. `*_blocks` uint8 [experts, rows, columns / 32, 16], the even
column in the low nibble; `*_scales` uint8 [experts, rows, columns / 32], exponents plus 127.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from streamingllm.models.formats.base import Settings, StoredTensor
from streamingllm.models.formats.stored import Values
from streamingllm.models.shards import Shards

E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)
_BIAS = 127
_REASON = "it holds all experts in one tensor, and packed layouts replace linear layers"


def mxfp4_weights(shards: Shards, settings: Settings) -> dict[str, StoredTensor]:
    """Find the experts of a gpt-oss checkpoint; see `WeightFormat`."""
    found = {}
    for name in shards.names:
        weight, _, part = name.rpartition("_")
        if part == "blocks" and f"{weight}_scales" in shards:
            parts = (name, f"{weight}_scales")
            found[weight] = StoredTensor(parts, partial(_read, shards, *parts), "mxfp4")
    return found


def decode_e2m1(pairs: Tensor, exponents: Tensor) -> Tensor:
    """Return numbers of blocks in float32.

    Args:
        pairs: uint8, [..., groups, bytes of a group]; the low nibble comes first.
        exponents: uint8, [..., groups], plus 127.

    Returns:
        [..., groups * twice the bytes of a group].
    """
    table = torch.tensor(E2M1)
    numbers = torch.stack((table[(pairs & 15).int()], table[(pairs >> 4).int()]), -1).flatten(-2)
    return torch.ldexp(numbers, exponents.int()[..., None] - _BIAS).flatten(-2)


def _read(shards: Shards, blocks: str, scales: str) -> Values:
    pairs, exponents = shards.read(blocks), shards.read(scales)
    # One expert after the other: the table's float32 is eight times the size of its nibbles.
    experts = [decode_e2m1(*expert).mT for expert in zip(pairs, exponents, strict=True)]
    return Values(torch.stack(experts), _REASON)
