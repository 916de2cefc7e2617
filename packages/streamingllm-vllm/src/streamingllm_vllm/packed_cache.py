"""Read packed blocks of vLLM's CPU cache: where each number of a key and a value is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from vllm import _custom_ops as ops

from streamingllm_vllm.errors import UnsupportedDeploymentError

_DIGIT = 128  # whole numbers up to this are exact in each floating-point type


@dataclass(frozen=True)
class PackedCache:
    """Read keys and values from blocks that a kernel has packed in its own order.

    Args:
        block_size: tokens of a block.
        keys: index of each number of a token's key in its block and head, int64
            [block_size, head_size].
        values: the same of values.
    """

    block_size: int
    keys: Tensor
    values: Tensor

    @classmethod
    def probe(
        cls, block_size: int, num_kv_heads: int, head_size: int, dtype: torch.dtype, isa: str
    ) -> PackedCache:
        """Find the order by writing numbered keys and values into a block.

        The numbers are written digit by digit, because bfloat16 is exact up to 256 only.

        Raises:
            UnsupportedDeploymentError: the block does not hold each number once, unchanged.
        """
        count = block_size * head_size
        index = torch.arange(count)
        found = torch.zeros(2, num_kv_heads, count, dtype=torch.int64)
        place = 1
        while place < count:
            digits = (index // place % _DIGIT).to(dtype).view(block_size, 1, head_size)
            found += place * _written(digits.expand(-1, num_kv_heads, -1).contiguous(), isa)
            place *= _DIGIT
        order = found.argsort(dim=-1)
        is_order = torch.equal(found.sort(dim=-1).values, index.expand_as(found))
        if not is_order or not torch.equal(order, order[:, :1].expand_as(order)):
            raise UnsupportedDeploymentError(
                f"dtype={dtype} isa={isa} packs keys in a way that cannot be read back; choose "
                "another dtype"
            )
        keys, values = order[:, 0].view(2, block_size, head_size)
        return cls(block_size, keys, values + count)

    def read(self, kv_cache: Tensor, slots: Tensor) -> tuple[Tensor, Tensor]:
        """Return copies of keys and values, each [slots, heads, head_size].

        Args:
            kv_cache: of one layer, [blocks, heads, block_size, 2 * head_size].
            slots: block id times `block_size` plus the offset in the block, int64 [slots].
        """
        flat = kv_cache.flatten(2)
        blocks = (slots // self.block_size)[:, None, None]
        heads = torch.arange(flat.shape[1])[None, :, None]
        offsets = slots % self.block_size
        keys = flat[blocks, heads, self.keys[offsets][:, None]]
        return keys, flat[blocks, heads, self.values[offsets][:, None]]


def _written(numbers: Tensor, isa: str) -> Tensor:
    """Return what a block then holds of keys and values, int64 [2, heads, numbers]."""
    block_size, num_kv_heads, head_size = numbers.shape
    block = torch.zeros(1, num_kv_heads, 2 * block_size, head_size, dtype=numbers.dtype)
    key_cache, value_cache = block.chunk(2, dim=2)
    slots = torch.arange(block_size)
    ops.cpu_attn_reshape_and_cache(numbers, numbers, key_cache, value_cache, slots, isa)
    return block.view(num_kv_heads, 2, -1).transpose(0, 1).to(torch.int64)
