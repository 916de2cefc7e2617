"""A tiny random model and a byte-level tokenizer in a folder, for what begins with a name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TRAINED_LENGTH = 64
BEGINNING = "<s>"


def write_tiny_folder(folder: Path, *, beginning: bool = False, **fields: Any) -> Path:
    """Save a model with one token per byte.

    Args:
        folder: where to.
        beginning: whether a token of its own comes before a text.
        fields: of the config, beside those below.
    """
    tokenizer = byte_tokenizer(beginning=beginning)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=TRAINED_LENGTH,
        initializer_range=0.3,  # large, so that predictions depend on what is seen
        **fields,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def byte_tokenizer(*, beginning: bool = False) -> PreTrainedTokenizerFast:
    """Return a tokenizer of 256 bytes and a beginning."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {BEGINNING: 0, **{byte: i for i, byte in enumerate(alphabet, start=1)}}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if beginning:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{BEGINNING} $A", special_tokens=[(BEGINNING, 0)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BEGINNING, model_max_length=TRAINED_LENGTH
    )
