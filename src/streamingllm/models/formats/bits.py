"""Whole numbers of a few bits, packed into 32-bit words."""

from __future__ import annotations

import torch
from torch import Tensor

_WORD_BITS = 32


def unpack_words(words: Tensor, num_bits: int) -> Tensor:
    """Return the unsigned numbers of each word, the lowest bits first.

    Args:
        words: int32, [..., n].
        num_bits: of a number; divides 32.

    Returns:
        int32, [..., n * 32 / num_bits].
    """
    shifts = torch.arange(0, _WORD_BITS, num_bits, dtype=torch.int32)
    return ((words[..., None] >> shifts) & ((1 << num_bits) - 1)).flatten(-2)


def unpack_dense(words: Tensor, num_bits: int, count: int) -> Tensor:
    """Return `count` unsigned numbers of each row, which may cross from one word to the next.

    Args:
        words: int32, [rows, n].
        num_bits: of a number, 1 to 8.
        count: numbers of a row.

    Returns:
        int32, [rows, count].
    """
    first_bit = torch.arange(count) * num_bits
    wide = torch.nn.functional.pad(words.to(torch.int64) & 0xFFFFFFFF, (0, 1))
    word, shift = first_bit // _WORD_BITS, first_bit % _WORD_BITS
    pairs = wide[:, word] | (wide[:, word + 1] << _WORD_BITS)
    return ((pairs >> shift) & ((1 << num_bits) - 1)).to(torch.int32)
