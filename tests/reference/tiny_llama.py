"""Small random Llamas: one builder for all tests and benchmarks that need no particular family."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

VOCAB_SIZE = 61
SIZES: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}


def new_llama(seed: int = 0, **fields: Any) -> LlamaForCausalLM:
    """Build a float32 model: two layers, four query heads over two key/value heads of size 8.

    Args:
        seed: of its weights; the global generator is left as it is.
        fields: of its config, instead of and in addition to SIZES.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(LlamaConfig(**(SIZES | fields)))
    return model.eval().requires_grad_(False)


@cache
def tiny_llama(dtype: torch.dtype = torch.float64, seed: int = 0) -> LlamaForCausalLM:
    """Return the model that tests of a stream and its cache share; they leave it as it is."""
    return new_llama(seed).to(dtype)


def random_ids(*shape: int, seed: int = 0) -> Tensor:
    """Token ids of the tiny vocabulary."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, VOCAB_SIZE, shape, generator=generator)
