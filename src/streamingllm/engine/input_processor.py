"""Prepare requests outside the step: tokens, checks, grammars."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from streamingllm.engine.forced_tokens import ForcedTokens
from streamingllm.engine.grammar import GrammarCompiler
from streamingllm.errors import InputError
from streamingllm.models import LanguageModel
from streamingllm.stream.generation_state import GenerationState
from streamingllm.stream.grammar import TokenMatcher
from streamingllm.stream.sampling import SamplingParams


class InputProcessor:
    """Tokenise prompts, check token ids and compile grammars; any thread may call it.

    Args:
        lm: model and tokenizer.
        vocab_size: token ids must be below it.
        window_size: generated tokens that the frequency and presence penalties count.
    """

    def __init__(self, lm: LanguageModel, vocab_size: int, window_size: int) -> None:
        self._lm = lm
        self._vocab_size = vocab_size
        self._window_size = window_size
        self._grammars = GrammarCompiler(lm, vocab_size)
        self._lock = threading.Lock()
        # A tokenizer that was saved with truncation drops it on first use, which no thread may see.
        lm.encode(".")

    def encode(self, prompt: str | Sequence[int], *, is_beginning: bool) -> list[int]:
        """Return token ids.

        Args:
            prompt: text, or token ids, which are checked.
            is_beginning: put what the model expects at the beginning of a stream before a text.

        Raises:
            InputError: an id is no integer or out of the vocabulary.
        """
        if not isinstance(prompt, str):
            return self.check_ids("token_ids", prompt)
        with self._lock:
            ids: list[int] = self._lm.encode(prompt, add_special_tokens=is_beginning).tolist()
        return ids

    def check_ids(self, name: str, ids: Sequence[int]) -> list[int]:
        """Return ids as a list.

        Args:
            name: of the argument, for the error.
            ids: any sequence of integers, which may be empty.

        Raises:
            InputError: an id is no integer or out of the vocabulary.
        """
        wrong = next((t for t in ids if isinstance(t, bool) or not isinstance(t, int)), None)
        if wrong is not None:
            raise InputError(f"{name} contains {wrong!r}, no integer; pass a list of token ids")
        out = next((t for t in ids if not 0 <= t < self._vocab_size), None)
        if out is not None:
            raise InputError(
                f"{name} contains {out}, which is out of the model's vocabulary; choose ids from 0 "
                f"to {self._vocab_size - 1}"
            )
        return list(ids)

    def generations(
        self, params: SamplingParams, forced_ids: Sequence[int] = ()
    ) -> list[GenerationState]:
        """Return the state of each of `params.n` samples; sample i has the seed `seed` + i.

        Args:
            params: sampling parameters.
            forced_ids: token ids with which the first sample begins.

        Raises:
            InputError: the grammar is wrong, or a token id is out of the vocabulary.
            UnsupportedFeatureError: grammars are not available here.
        """
        self.check_ids("logit_bias", [*params.logit_bias])
        self.check_ids("stop_token_ids", [*params.stop_token_ids])
        matcher = None if params.grammar is None else self._grammars.matcher(params.grammar)
        forced = self.check_ids("forced_ids", forced_ids)
        states = []
        for index in range(params.n):
            seed = None if params.seed is None else (params.seed + index) % 2**63
            own = replace(params, n=1, seed=seed)
            own_matcher: TokenMatcher | None = None if matcher is None else matcher.clone()
            if forced_ids and index == 0:
                own_matcher = ForcedTokens(forced, self._vocab_size, own_matcher)
            states.append(GenerationState(self._lm, own, self._window_size, own_matcher))
        return states

    def restored(self, state: dict[str, Any] | None) -> GenerationState | None:
        """Return the state that `GenerationState.to_json` wrote, None for None."""
        if state is None:
            return None
        grammar = SamplingParams.from_json(state["params"]).grammar
        matcher = None if grammar is None else self._grammars.matcher(grammar)
        return GenerationState.from_json(self._lm, state, self._window_size, matcher)
