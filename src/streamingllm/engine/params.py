"""What a caller asks of one stream: how tokens are chosen, and when the text ends."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from streamingllm.engine.grammar import Grammar
from streamingllm.errors import ConfigError
from streamingllm.stream.sampling import GREEDY, Sampling

FinishReason = Literal["stop", "length", "cancelled", "failed"]

_MAX_SEED = 2**63 - 1


@dataclass(frozen=True)
class GenerationParams:
    """How one stream of an engine writes; the default is greedy, up to 256 tokens.

    Args:
        max_new_tokens: the text ends after so many; None goes on without end, 0 only reads.
        sampling: how tokens are chosen.
        seed: makes sampling repeatable, whatever the stream's neighbours do; None draws one.
        stop_strings: the text ends before the first of them.
        stop_token_ids: the text ends with the first of these, beside the model's own end tokens.
        ignore_eos: the model's own end tokens do not end the text.
        grammar: what the text must look like; it ends when the grammar does.

    Raises:
        ConfigError: a value is out of range.
    """

    max_new_tokens: int | None = 256
    sampling: Sampling = GREEDY
    seed: int | None = None
    stop_strings: Sequence[str] = ()
    stop_token_ids: Collection[int] = ()
    ignore_eos: bool = False
    grammar: Grammar | None = None

    def __post_init__(self) -> None:
        if self.max_new_tokens is not None and self.max_new_tokens < 0:
            raise ConfigError(
                f"max_new_tokens={self.max_new_tokens}: must be a whole number >= 0, or None"
            )
        if self.seed is not None and not 0 <= self.seed <= _MAX_SEED:
            raise ConfigError(f"seed={self.seed}: must be a whole number from 0 to 2**63 - 1")
        if isinstance(self.stop_strings, str) or "" in self.stop_strings:
            raise ConfigError(
                f"stop_strings={self.stop_strings!r}: must be a sequence of strings of one "
                "character or more"
            )
        if any(token < 0 for token in self.stop_token_ids):
            raise ConfigError(f"stop_token_ids={self.stop_token_ids}: must be token ids >= 0")
        if self.grammar is not None and self.ignore_eos:
            raise ConfigError(
                "ignore_eos=True: must be False with a grammar, which says where a text ends"
            )
