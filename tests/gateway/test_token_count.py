"""Counts of a tokenizer's file."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamingllm.errors import ConfigError
from streamingllm.gateway.token_count import token_counter
from tests.reference.tiny_folder import byte_tokenizer


def test_tokens_are_counted_as_the_tokenizer_does(tmp_path: Path) -> None:
    byte_tokenizer().save_pretrained(tmp_path)
    for name in (str(tmp_path), str(tmp_path / "tokenizer.json")):
        count = token_counter(name)
        assert count("abc") == 3
        assert count("é") == 2
        assert count("") == 0


@pytest.mark.parametrize("content", [None, "", "{}"])
def test_what_is_no_tokenizer_is_refused_by_name(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=r"tokenizer=.*tokenizer.json.* cannot be read"):
        token_counter(str(path))
