"""Grammars that a text must follow: their plain definition, and the protocol of a matcher."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from torch import Tensor


@dataclass(frozen=True)
class Grammar:
    """Define which texts are allowed; see the class methods.

    Args:
        syntax: notation of `definition`.
        definition: the JSON schema, the regular expression, or the grammar.
    """

    syntax: Literal["json_schema", "regex", "lark"]
    definition: str

    @classmethod
    def json_schema(cls, schema: dict[str, Any] | str) -> Grammar:
        """Allow JSON of that schema only, on one line; `{}` is any JSON.

        The schema's own `x-guidance` can allow more white space, which small models never end.
        """
        text = schema if isinstance(schema, str) else json.dumps(schema)
        return cls("json_schema", text)

    @classmethod
    def regex(cls, pattern: str) -> Grammar:
        """Allow texts that match the whole pattern, in the syntax of Rust's regular expressions."""
        return cls("regex", pattern)

    @classmethod
    def lark(cls, grammar: str) -> Grammar:
        """Allow texts of a context-free grammar in Lark's notation."""
        return cls("lark", grammar)


class TokenMatcher(Protocol):
    """Follow one text through its grammar."""

    def allowed(self) -> Tensor:
        """Return which tokens are allowed next, bool, [1, vocab]."""
        ...

    def append(self, token: int) -> None:
        """Advance by an allowed token.

        Raises:
            InputError: the grammar has become too complex to follow.
        """
        ...

    @property
    def is_finished(self) -> bool:
        """Return whether no token is allowed next."""
        ...

    def clone(self) -> TokenMatcher:
        """Return an independent matcher at the same position."""
        ...
