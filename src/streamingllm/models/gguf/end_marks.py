"""Tokens after which a turn or a text is over, beyond the one that a GGUF file names so."""

from __future__ import annotations

from collections.abc import Sequence

from streamingllm.models.gguf.header import GgufHeader

_STATED = ("eos_token_id", "eot_token_id", "eom_token_id")
_MARKS = frozenset(
    (
        "<|eot_id|>",
        "<|eom_id|>",
        "<|im_end|>",
        "<|end|>",
        "<|return|>",
        "<|call|>",
        "<|endoftext|>",
        "<|end_of_text|>",
        "<|end▁of▁sentence|>",
        "<｜end▁of▁sentence｜>",
        "<end_of_turn>",
        "<end_of_utterance>",
        "<|END_OF_TURN_TOKEN|>",
        "<turn|>",
        "<EOT>",
        "[EOT]",
        "[EOS]",
    )
)
_PLAIN = 1  # type of a token that is text


def end_token_ids(header: GgufHeader, vocab_size: int) -> list[int]:
    """Return the ids that end a turn: those the file states first, then marks known by name.

    Files are often made with an eos that is not the mark that their template puts after an answer.
    A mark counts if the vocabulary has it as a token of its own, not as text.

    Args:
        header: of the file.
        vocab_size: ids that the model has.

    Source: https://github.com/ggml-org/llama.cpp/blob/master/src/llama-vocab.cpp, EOG tokens.
    """
    stated = [header.integer(f"tokenizer.ggml.{name}", -1) for name in _STATED]
    tokens: Sequence[object] = header.array("tokenizer.ggml.tokens") or []
    types = header.array("tokenizer.ggml.token_type") or []
    found = [
        token_id
        for token_id, token in enumerate(tokens)
        if token in _MARKS and (token_id >= len(types) or types[token_id] != _PLAIN)
    ]
    return [i for i in dict.fromkeys((*stated, *found)) if 0 <= i < vocab_size]
