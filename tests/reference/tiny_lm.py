"""A tiny random model that decode steps can be made for, with one token per byte."""

from __future__ import annotations

from functools import cache

import torch

from streamingllm import LanguageModel
from tests.reference.tiny_folder import byte_tokenizer
from tests.reference.tiny_llama import new_llama

END = "~"


@cache
def tiny_lm(dtype: torch.dtype = torch.float32) -> LanguageModel:
    """Two layers, four query heads over two key/value heads of size 16; "~" ends a text."""
    tokenizer = byte_tokenizer()
    tokenizer.eos_token = END
    model = new_llama(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=96,
        initializer_range=0.3,  # large, so that predictions depend on what is seen
        eos_token_id=None,
    )
    return LanguageModel(model.to(dtype), tokenizer, "tiny", "test")
