"""Keys and values in eight bits: each row carries its own scale."""

from __future__ import annotations

import torch
from torch import Tensor

SCALE_BYTES = 4
_LARGEST_CODE = 127.0


def encode_rows(x: Tensor) -> Tensor:
    """Quantise rows [..., dim] to int8 [..., dim + 4]: codes, then the bytes of a float32 scale.

    A row's greatest value gets code 127 or -127, so the error is at most half of 1/127 of it. A row
    whose scale would be subnormal, with nothing above 1.5e-36, may be read as zeros: processors are
    often told to flush such numbers.
    """
    x = x.float()
    greatest = x.abs().amax(dim=-1, keepdim=True)
    # Torch divides tensors exactly; with a number it multiplies by a reciprocal, on a GPU at least.
    largest = torch.full_like(greatest, _LARGEST_CODE)
    scale, inverse = greatest / largest, largest / greatest
    codes = (x * inverse.where(greatest > 0, 0.0)).round().to(torch.int8)
    return torch.cat((codes, scale.view(torch.int8)), dim=-1)


def decode_rows(rows: Tensor) -> Tensor:
    """Return what `encode_rows` kept, float32, [..., dim]."""
    codes, scale = rows[..., :-SCALE_BYTES], rows[..., -SCALE_BYTES:].contiguous()
    return codes.float() * scale.view(torch.float32)
