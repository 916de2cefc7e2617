"""Count the tokens of texts: by a model's tokenizer, or by an estimate."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from tokenizers import Tokenizer

from streamingllm.errors import ConfigError, first_line

MESSAGE_TOKENS = 8  # marks of a template around a message
_BYTES_PER_TOKEN = 3  # fewer than most texts have, so that estimates err on the safe side
_FILE = "tokenizer.json"
_REMEMBERED_TEXTS = 8192  # a client sends its history again and again


def estimated_tokens(text: str) -> int:
    """Return about how many tokens a text has, rather too many than too few."""
    return -(-len(text.encode(errors="replace")) // _BYTES_PER_TOKEN)


def message_tokens(count_tokens: Callable[[str], int], text: str) -> int:
    """Return the tokens of a message, the marks around it included."""
    return count_tokens(text) + MESSAGE_TOKENS


def token_counter(name: str) -> Callable[[str], int]:
    """Return a function that counts the tokens of a text.

    Args:
        name: a tokenizer.json, a folder with one, or a hub id.

    Raises:
        ConfigError: there is none, or it cannot be read.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        path /= _FILE
    try:
        if not path.is_file():
            path = _from_hub(name)
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain exceptions
        raise ConfigError(
            f"tokenizer={name!r} cannot be read ({first_line(error)}); give a {_FILE}, a folder "
            "with one, or a hub id"
        ) from error

    @lru_cache(maxsize=_REMEMBERED_TEXTS)
    def count(text: str) -> int:
        return len(tokenizer.encode(text, add_special_tokens=False).ids)

    return count


def _from_hub(name: str) -> Path:
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(name, _FILE))
