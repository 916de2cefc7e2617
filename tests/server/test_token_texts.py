"""Single tokens have their own bytes, even where they are parts of characters."""

from __future__ import annotations

from streamingllm.server.token_texts import TokenTexts
from tests.reference.tiny_folder import BEGINNING, byte_tokenizer


def test_bytes_of_tokens_join_to_the_bytes_of_a_text() -> None:
    tokenizer = byte_tokenizer()
    texts = TokenTexts(tokenizer)
    text = "a \n\N{EURO SIGN}\N{GRINNING FACE}"
    ids = tokenizer(text)["input_ids"]
    assert b"".join(texts.bytes_of(i) for i in ids) == text.encode()
    assert "\N{REPLACEMENT CHARACTER}" in [texts.text_of(i) for i in ids]


def test_special_tokens_are_their_names_and_others_nothing() -> None:
    tokenizer = byte_tokenizer()
    texts = TokenTexts(tokenizer)
    assert texts.text_of(tokenizer.convert_tokens_to_ids(BEGINNING)) == BEGINNING
    assert texts.bytes_of(len(tokenizer) + 5) == b""
