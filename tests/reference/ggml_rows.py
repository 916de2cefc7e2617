"""Random rows of ggml blocks whose scales are of an ordinary size."""

from __future__ import annotations

import torch
from torch import Tensor

from streamingllm.kernels.blocks import FORMATS

# Where the halves of a block begin, from the structures in ggml-common.h.
HALVES = {
    "Q4_0": (0,), "Q4_1": (0, 2), "Q5_0": (0,), "Q5_1": (0, 2), "Q8_0": (0,), "Q2_K": (80, 82),
    "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,), "IQ4_NL": (0,),
    "IQ4_XS": (0,), "MXFP4": (),
}  # fmt: skip


def random_rows(ggml_type: int, num_rows: int, num_columns: int, seed: int = 0) -> Tensor:
    """Return uint8 [num_rows, bytes of a row]: any codes and scales, halves between -1 and 1."""
    format, random = FORMATS[ggml_type], torch.Generator().manual_seed(seed)
    num_blocks = num_columns // format.block_columns
    shape = (num_rows, num_blocks, format.block_bytes)
    blocks = torch.randint(0, 256, shape, generator=random, dtype=torch.uint8)
    for at in HALVES[format.name]:
        halves = torch.rand(shape[:2], generator=random).mul(2).sub(1).half()
        blocks[..., at : at + 2] = halves.view(torch.uint8).view(*shape[:2], 2)
    if format.name == "MXFP4":
        blocks[..., 0] = torch.randint(0, 140, shape[:2], generator=random, dtype=torch.uint8)
    return blocks.flatten(1)
