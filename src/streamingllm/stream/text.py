"""From tokens to text, as they come: no half characters, nothing of a stop string."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import torch
from transformers import PreTrainedTokenizerBase

from streamingllm.errors import InputError
from streamingllm.models import LanguageModel
from streamingllm.stream import Stream
from streamingllm.stream.sampling import GREEDY, Sampling

FinishReason = Literal["length", "end_token", "stop_string", "interrupted"]

_INCOMPLETE = "\N{REPLACEMENT CHARACTER}"
_MAX_HELD_TOKENS = 32


class Detokenizer:
    """Turn tokens into text one by one; together the pieces are the text of all tokens.

    A token may end within a character, which is held back until it is complete (for at most 32
    tokens), and its text may depend on the token before it, which is decoded along with it.

    Args:
        tokenizer: special tokens, as it names them, have no text.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        added = tokenizer.added_tokens_decoder.items()
        self._special_ids = {token_id for token_id, token in added if token.special}
        self._context: list[int] = []
        self._context_text = ""
        self._held: list[int] = []

    def add(self, token_id: int) -> str:
        """Return the text that this token completes, often empty for part of a character."""
        if token_id in self._special_ids:
            return ""
        self._held.append(token_id)
        text = self._decode(self._context + self._held)
        if text.endswith(_INCOMPLETE) and len(self._held) < _MAX_HELD_TOKENS:
            return ""
        return self._release(text)

    def finish(self) -> str:
        """Return what is held back, with replacement characters for what was never completed."""
        return self._release(self._decode(self._context + self._held))

    def _release(self, text: str) -> str:
        new = text[len(self._context_text) :]
        if new:
            self._context, self._held = self._held, []
            self._context_text = self._decode(self._context)
        return new

    def _decode(self, ids: list[int]) -> str:
        text = self._tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        assert isinstance(text, str)
        return text


class StopStrings:
    """End a text before the first stop string in it, however the text is cut into pieces.

    First is the one that is complete first; of two that end together, the longer.

    Args:
        stop_strings: any number of them.

    Raises:
        InputError: one of them is empty.
    """

    def __init__(self, stop_strings: Sequence[str] = ()) -> None:
        if "" in stop_strings:
            raise InputError("stop_strings contains '': must have at least one character each")
        self._stop_strings = tuple(stop_strings)
        self._held = ""
        self.found: str | None = None

    def add(self, text: str) -> str:
        """Return text that cannot be the beginning of a stop string; nothing once one is found."""
        if self.found is not None:
            return ""
        self._held += text
        starts = {stop: self._held.find(stop) for stop in self._stop_strings}
        ends = [(at + len(stop), at, stop) for stop, at in starts.items() if at >= 0]
        if not ends:
            return self._release(len(self._held) - self._num_undecided())
        _, start, self.found = min(ends)
        released = self._release(start)
        self._held = ""
        return released

    def finish(self) -> str:
        """Return what is held back: the text has ended without a stop string."""
        return self._release(len(self._held))

    def _release(self, num_characters: int) -> str:
        released, self._held = self._held[:num_characters], self._held[num_characters:]
        return released

    def _num_undecided(self) -> int:
        """Length of the longest end of the text that a stop string begins with."""
        longest = max((len(stop) - 1 for stop in self._stop_strings), default=0)
        for length in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self._stop_strings):
                return length
        return 0


class TextPieces:
    """Iterate over the text of tokens that are being written.

    Args:
        tokens: ids, as `Stream.generate` yields them; no more are taken after a stop string.
        lm: whose tokens they are; its end tokens have no text.
        stop_strings: the text ends before the first of them.

    Attributes:
        finish_reason: why the text has ended; None while it has not.
    """

    def __init__(
        self, tokens: Iterable[int], lm: LanguageModel, *, stop_strings: Sequence[str] = ()
    ) -> None:
        self._tokens = tokens
        self._detokenizer = Detokenizer(lm.tokenizer)
        self._eos_token_ids = lm.eos_token_ids
        self._stops = StopStrings(stop_strings)
        self._interrupted = False
        self.finish_reason: FinishReason | None = None

    def interrupt(self) -> None:
        """End the text after the token that is being written; a signal handler may call this."""
        self._interrupted = True

    def __iter__(self) -> Iterator[str]:
        reason: FinishReason = "length"
        for token in self._tokens:
            reason = "end_token" if token in self._eos_token_ids else "length"
            text = "" if reason == "end_token" else self._detokenizer.add(token)
            if piece := self._stops.add(text):
                yield piece
            if self._stops.found is not None or self._interrupted:
                reason = "interrupted" if self._stops.found is None else "stop_string"
                break
        self.finish_reason = reason
        if rest := self._stops.add(self._detokenizer.finish()) + self._stops.finish():
            yield rest


def generate_text(
    stream: Stream,
    lm: LanguageModel,
    max_new_tokens: int,
    *,
    sampling: Sampling = GREEDY,
    stop_strings: Sequence[str] = (),
    ignore_eos: bool = False,
    generator: torch.Generator | None = None,
) -> TextPieces:
    """Write text from where a stream stands, piece by piece.

    Tokens of a stop string have become part of the stream, though their text is not returned.

    Args:
        stream: a single one that has been fed; it goes on with each piece that is taken.
        lm: the model of the stream with its tokenizer.
        max_new_tokens: upper bound on the tokens written.
        sampling: how tokens are chosen.
        stop_strings: the text ends before the first of them.
        ignore_eos: go on after the model has said all it wanted to say.
        generator: source of randomness.

    Raises:
        InputError: nothing has been fed, or a stop string is empty.
    """
    tokens = stream.generate(
        max_new_tokens,
        sampling=sampling,
        stop_token_ids=() if ignore_eos else lm.eos_token_ids,
        generator=generator,
    )
    return TextPieces(tokens, lm, stop_strings=stop_strings)
