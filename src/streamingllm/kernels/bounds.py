"""Sizes and data types that kernels are written for, each stated once."""

from __future__ import annotations

import torch

DTYPES = {
    "cpu": (torch.float32, torch.bfloat16),
    "cuda": (torch.float32, torch.bfloat16, torch.float16),
}
ROW_MULTIPLE = 16  # numbers in the widest vector of a processor
GREATEST_WINDOWED_DIM = 256  # of a head in a chunk
GREATEST_GPU_DIM = 256  # of a head: tiles of wider heads do not fit in shared memory
