"""Let a text begin with given tokens, as if they had been chosen."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from streamingllm.stream.grammar import TokenMatcher


class ForcedTokens:
    """Allow one token after the other, then what another matcher allows; a `TokenMatcher`.

    Each forced token takes a step and a draw. So the source of randomness, the penalties and the
    grammar stand afterwards where they would stand if the tokens had been chosen.

    Args:
        token_ids: forced.
        vocab_size: width of the model's logits.
        rest: follows the whole text; None allows all tokens.
    """

    def __init__(
        self, token_ids: Sequence[int], vocab_size: int, rest: TokenMatcher | None = None
    ) -> None:
        self._token_ids = token_ids
        self._vocab_size = vocab_size
        self._rest = rest
        self._at = 0

    def allowed(self) -> Tensor:
        """Return which tokens are allowed next, bool, [1, vocab]."""
        if self._at < len(self._token_ids):
            allowed = torch.zeros(1, self._vocab_size, dtype=torch.bool)
            allowed[0, self._token_ids[self._at]] = True
            return allowed
        if self._rest is not None:
            return self._rest.allowed()
        return torch.ones(1, self._vocab_size, dtype=torch.bool)

    def append(self, token: int) -> None:
        """Advance by an allowed token; see `TokenMatcher`."""
        self._at += 1
        if self._rest is not None:
            self._rest.append(token)

    @property
    def is_finished(self) -> bool:
        """Return whether no token is allowed next."""
        return self._rest is not None and self._rest.is_finished

    def clone(self) -> ForcedTokens:
        """Return an independent matcher at the same position."""
        rest = None if self._rest is None else self._rest.clone()
        other = ForcedTokens(self._token_ids, self._vocab_size, rest)
        other._at = self._at
        return other
