"""A tiny random model that decode steps can be made for, with one token per byte."""

from __future__ import annotations

from functools import cache

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from streamingllm import LanguageModel
from tests.reference.tiny_folder import byte_tokenizer

END = "~"


@cache
def tiny_lm(dtype: torch.dtype = torch.float32) -> LanguageModel:
    """Two layers, four query heads over two key/value heads of size 16; "~" ends a text."""
    tokenizer = byte_tokenizer()
    tokenizer.eos_token = END
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.3,  # large, so that predictions depend on what is seen
        eos_token_id=None,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
    return LanguageModel(model.to(dtype).eval().requires_grad_(False), tokenizer, "tiny", "test")
