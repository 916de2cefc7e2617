"""Passes of a family's model over random tokens, shared by tests and benchmarks."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from streamingllm import SinkCache
from tests.reference.family import VOCAB_SIZE

NUM_TOKENS = 48


def tokens(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, VOCAB_SIZE, shape, generator=generator)


IDS = tokens(1, NUM_TOKENS)


def stream(
    cache: SinkCache, model: PreTrainedModel, ids: Tensor, sizes: Sequence[int], **kwargs: Any
) -> Tensor:
    """Feed `ids` in chunks of the given sizes; return all logits."""
    with torch.no_grad():
        chunks = ids.split(list(sizes), dim=1)
        return torch.cat([model(c, past_key_values=cache, **kwargs).logits for c in chunks], dim=1)


def random_sizes(total: int, seed: int) -> Iterator[int]:
    """Chunk sizes of all kinds, single tokens most often."""
    choose = random.Random(seed)
    while total > 0:
        size = min(total, choose.choice((1, 1, 1, 2, 5, 12, 13, 31)))
        total -= size
        yield size


def difference(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).abs().max())
