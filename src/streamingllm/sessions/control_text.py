"""Keep apart the marks that a chat template writes and their look-alikes in what people say."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

from streamingllm.errors import InputError
from streamingllm.models import LanguageModel

_PRIVATE_USE = range(0xE000, 0xF900)


@dataclass(frozen=True)
class Piece:
    """A part of a rendered text.

    Args:
        text: the part.
        is_literal: whether it is to be read as text although it looks like a control token.
    """

    text: str
    is_literal: bool = False


class RenderedText:
    """A rendered text in pieces, which tells literal text from control tokens.

    Args:
        pieces: one after the other; empty ones are dropped.
    """

    def __init__(self, pieces: Iterable[Piece]) -> None:
        self.pieces = [piece for piece in pieces if piece.text]

    def __str__(self) -> str:
        return "".join(piece.text for piece in self.pieces)

    def drop(self, num_characters: int) -> RenderedText:
        """Return the text without its first characters."""
        kept = []
        for piece in self.pieces:
            kept.append(Piece(piece.text[num_characters:], piece.is_literal))
            num_characters = max(0, num_characters - len(piece.text))
        return RenderedText(kept)

    def drop_after(self, num_characters: int) -> RenderedText:
        """Return the first characters of the text."""
        kept = []
        for piece in self.pieces:
            kept.append(Piece(piece.text[:num_characters], piece.is_literal))
            num_characters = max(0, num_characters - len(piece.text))
        return RenderedText(kept)

    def encode(self, lm: LanguageModel, *, is_first: bool) -> list[int]:
        """Return the token ids; a literal piece has no control token among its own.

        Args:
            lm: whose tokenizer to use.
            is_first: whether the text begins a stream; otherwise it goes on where another ended.

        Raises:
            InputError: the tokenizer makes a control token even from literal text.
        """
        ids: list[int] = []
        for piece in self.pieces:
            ids += lm.encode(
                piece.text,
                add_special_tokens=False,
                parse_control_tokens=not piece.is_literal,
                is_continuation=bool(ids) or not is_first,
            ).tolist()
        return ids


class ControlText:
    """Mark the control tokens in what people say before a template renders it.

    An occurrence is put between two characters that occur nowhere in what is rendered. Templates
    trim, split and compare the rest of the text as they always do.

    Args:
        template: source of the chat template.
        tokens: texts of all added tokens, and whether each is special. Special tokens are control
            tokens; others are if the template writes them.
    """

    def __init__(self, template: str, tokens: Mapping[str, bool]) -> None:
        special = {token for token, is_special in tokens.items() if is_special and token}
        written = {token for token in tokens if token in template and token.strip()}
        self._all = _alternatives(frozenset(special | written))
        self._special = _alternatives(frozenset(special))

    def render(self, render: Callable[[Any], str], data: Mapping[str, Any]) -> RenderedText:
        """Render data with its control tokens marked.

        Args:
            render: the template, from data to text.
            data: JSON-able; `messages` whose role is "assistant" may contain control tokens that
                are not special, because a model writes them.
        """
        opening, closing = _unused_characters(data)

        def mark(value: Any, pattern: re.Pattern[str]) -> Any:
            if isinstance(value, str):
                return pattern.sub(lambda found: f"{opening}{found[0]}{closing}", value)
            if isinstance(value, Mapping):
                inner = self._special if value.get("role") == "assistant" else pattern
                return {mark(k, inner): mark(v, inner) for k, v in value.items()}
            if isinstance(value, list | tuple):
                return [mark(item, pattern) for item in value]
            return value

        text = render(mark(data, self._all))
        # A template that splits a text may leave one of two characters; both go.
        parts = re.split(f"{opening}({self._all.pattern}){closing}|[{opening}{closing}]", text)
        return RenderedText(
            Piece(part or "", is_literal=at % 2 == 1) for at, part in enumerate(parts)
        )


def placeholder_for(data: Any) -> str:
    """Return a word that occurs nowhere in JSON-able data, not even in part."""
    texts = "\0".join(_texts(data))
    number = 0
    while (word := f"streamingllmplaceholder{number}x") in texts:
        number += 1
    return word


@lru_cache(maxsize=32)
def _alternatives(tokens: frozenset[str]) -> re.Pattern[str]:
    longest_first = sorted(tokens, key=lambda token: (-len(token), token))
    return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")


def _unused_characters(data: Any) -> Sequence[str]:
    used = set("".join(_texts(data)))
    free = [chr(code) for code in _PRIVATE_USE if chr(code) not in used]
    if len(free) < 2:
        raise InputError("the messages contain all private-use characters; leave out two of them")
    return free[:2]


def _texts(data: Any) -> Iterable[str]:
    if isinstance(data, str):
        yield data
    elif isinstance(data, Mapping):
        for key, value in data.items():
            yield from _texts(key)
            yield from _texts(value)
    elif isinstance(data, list | tuple):
        for item in cast("Sequence[Any]", data):
            yield from _texts(item)
