"""Compilation of grammars and JSON schemas by llguidance."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from streamingllm.errors import InputError, UnsupportedFeatureError
from streamingllm.models import LanguageModel
from streamingllm.stream.grammar import Grammar

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

_ONE_LINE: Any = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


class GrammarCompiler:
    """Compile grammars for the tokens of one model; any thread may call it.

    Args:
        lm: model and tokenizer; the first grammar reads the tokenizer, which takes about a second.
        vocab_size: width of the model's logits.
    """

    def __init__(self, lm: LanguageModel, vocab_size: int) -> None:
        self._lm = lm
        self._vocab_size = vocab_size
        self._tokenizer: LLTokenizer | None = None
        self._lock = threading.Lock()

    def matcher(self, grammar: Grammar) -> GrammarMatcher:
        """Return a matcher at the beginning of a text.

        Raises:
            InputError: the grammar is wrong.
            UnsupportedFeatureError: llguidance is not installed or cannot read the tokenizer.
        """
        with self._lock:
            tokenizer = self._read_tokenizer()
        from llguidance import LLMatcher

        try:
            if grammar.syntax == "json_schema":
                source = LLMatcher.grammar_from_json_schema(grammar.definition, _ONE_LINE)
            elif grammar.syntax == "regex":
                source = LLMatcher.grammar_from_regex(grammar.definition)
            else:
                source = LLMatcher.grammar_from_lark(grammar.definition)
        except ValueError as error:
            raise _wrong(grammar, str(error)) from error
        matcher = LLMatcher(tokenizer, source, log_level=0)
        if matcher.is_error():
            raise _wrong(grammar, matcher.get_error())
        return GrammarMatcher(matcher, self._vocab_size)

    def _read_tokenizer(self) -> LLTokenizer:
        if self._tokenizer is None:
            try:
                from llguidance.hf import from_tokenizer
            except ImportError as error:
                raise UnsupportedFeatureError(
                    "grammar needs llguidance, which is not installed; pip install "
                    "'streamingllm[grammar]'"
                ) from error
            tokenizer: Any = self._lm.tokenizer
            ends = sorted(self._lm.eos_token_ids) or None
            try:
                self._tokenizer = from_tokenizer(tokenizer, self._vocab_size, ends)
            except ValueError as error:
                raise UnsupportedFeatureError(
                    f"grammar: llguidance cannot read {type(tokenizer).__name__} "
                    f"({_one_line(str(error))}); use a model with a fast tokenizer"
                ) from error
        return self._tokenizer


class GrammarMatcher:
    """Follow one text through its grammar.

    Args:
        matcher: of llguidance.
        vocab_size: width of the model's logits.
    """

    def __init__(self, matcher: LLMatcher, vocab_size: int) -> None:
        self._matcher = matcher
        self._vocab_size = vocab_size

    def allowed(self) -> Tensor:
        """Return which tokens are allowed next, bool, [1, vocab]."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        self._check()
        allowed = np.unpackbits(bits, bitorder="little")[: self._vocab_size]
        return torch.from_numpy(allowed).bool()[None]

    def append(self, token: int) -> None:
        """Advance by an allowed token.

        Raises:
            InputError: the grammar has become too complex to follow.
        """
        self._matcher.consume_token(token)
        self._check()

    @property
    def is_finished(self) -> bool:
        """Return whether no token is allowed next."""
        return self._matcher.is_stopped()

    def clone(self) -> GrammarMatcher:
        """Return an independent matcher at the same position."""
        return GrammarMatcher(self._matcher.deep_copy(), self._vocab_size)

    def _check(self) -> None:
        if self._matcher.is_error():
            raise InputError(f"grammar: {_one_line(self._matcher.get_error())}")


def _wrong(grammar: Grammar, message: str) -> InputError:
    return InputError(f"grammar: is no valid {grammar.syntax} ({_one_line(message)})")


def _one_line(text: str) -> str:
    return " ".join(text.split())
