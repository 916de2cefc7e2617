"""A tiny random model and a byte-level tokenizer in a folder, for what begins with a name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from tests.reference.tiny_llama import new_llama

TRAINED_LENGTH = 64
BEGINNING = "<s>"


def write_tiny_folder(folder: Path, *, beginning: bool = False, **fields: Any) -> Path:
    """Save a model with one token per byte.

    Args:
        folder: where to.
        beginning: whether a token of its own comes before a text.
        fields: of the config, instead of and in addition to those below.
    """
    tokenizer = byte_tokenizer(beginning=beginning)
    # The range is large, so that predictions depend on what is seen.
    facts = {"max_position_embeddings": TRAINED_LENGTH, "initializer_range": 0.3}
    new_llama(**{"vocab_size": len(tokenizer), **facts, **fields}).save_pretrained(folder)
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
