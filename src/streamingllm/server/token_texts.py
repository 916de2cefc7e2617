"""The text and the bytes of single tokens, for reports of their probabilities."""

from __future__ import annotations

from functools import cache

from transformers import PreTrainedTokenizerBase

_BYTE_TOKEN_LENGTH = len("<0x00>")


class TokenTexts:
    """Return what each token of a vocabulary stands for.

    Args:
        tokenizer: byte-level, or with tokens such as `<0x0A>` for bytes; others have texts only.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._added = tokenizer.added_tokens_decoder
        backend = getattr(tokenizer, "backend_tokenizer", None)
        self._is_byte_level = "ByteLevel" in repr(getattr(backend, "decoder", None))

    def bytes_of(self, token_id: int) -> bytes:
        """Return the bytes of a token, which may be a part of a character."""
        if (added := self._added.get(token_id)) is not None:
            return str(added.content).encode()
        piece = self._tokenizer.convert_ids_to_tokens(token_id)
        if not isinstance(piece, str):  # the model has more embeddings than tokens
            return b""
        if self._is_byte_level:
            return _bytes_of_piece(piece)
        if len(piece) == _BYTE_TOKEN_LENGTH and piece.startswith("<0x") and piece.endswith(">"):
            return bytes.fromhex(piece[3:5])
        return piece.replace("\N{LOWER ONE EIGHTH BLOCK}", " ").encode()

    def text_of(self, token_id: int) -> str:
        """Return the text of a token, with replacement characters for parts of characters."""
        return self.bytes_of(token_id).decode(errors="replace")


def _bytes_of_piece(piece: str) -> bytes:
    table = _byte_of_character()
    if all(character in table for character in piece):
        return bytes(table[character] for character in piece)
    return piece.encode()


@cache
def _byte_of_character() -> dict[str, int]:
    """Return the alphabet of byte-level tokenizers: printable bytes are their own characters.

    Source: GPT-2's `bytes_to_unicode`.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {
        chr(0x100 + number): byte for number, byte in enumerate(others)
    }
