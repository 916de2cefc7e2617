"""Turn tokens into text as they come: no half characters, nothing of a stop string."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from streamingllm.errors import InputError
from streamingllm.finish_reason import FinishReason
from streamingllm.models import LanguageModel
from streamingllm.stream import Stream
from streamingllm.stream.sampling import GREEDY, SamplingParams

_INCOMPLETE = "\N{REPLACEMENT CHARACTER}"
_MAX_HELD_TOKENS = 32


class Detokenizer:
    """Turn tokens into text one by one; together the pieces are the text of all tokens.

    A token may end within a character, which is held back until it is complete, for at most 32
    tokens. The text of a token may depend on the one before, which is decoded along with it.

    Args:
        tokenizer: special tokens, as it names them, are hidden: they have no text here, but stop
            strings find it by `hidden_text`.
        shown_token_ids: special tokens that are not hidden.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, shown_token_ids: Collection[int] = ()
    ) -> None:
        self._tokenizer = tokenizer
        added = tokenizer.added_tokens_decoder.items()
        self._special_texts = {
            i: token.content for i, token in added if token.special and i not in shown_token_ids
        }
        self._context: list[int] = []
        self._context_text = ""
        self._held: list[int] = []

    def add(self, token_id: int) -> str:
        """Return the text that this token completes, often empty for part of a character."""
        if token_id in self._special_texts:
            return ""
        self._held.append(token_id)
        text = self._decode(self._context + self._held)
        if text.endswith(_INCOMPLETE) and len(self._held) < _MAX_HELD_TOKENS:
            return ""
        return self._release(text)

    def hidden_text(self, token_id: int) -> str:
        """Return the text of a special token; empty for all others."""
        return self._special_texts.get(token_id, "")

    def finish(self) -> str:
        """Return what is held back, with replacement characters for what was never completed."""
        return self._release(self._decode(self._context + self._held))

    def to_json(self) -> dict[str, list[int]]:
        """Return the state as JSON-able values."""
        return {"context": list(self._context), "held": list(self._held)}

    def load_json(self, state: dict[str, list[int]]) -> None:
        """Take over the state that `to_json` returned."""
        self._context, self._held = list(state["context"]), list(state["held"])
        self._context_text = self._decode(self._context)

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

    First is the one that is complete first; of two that end together, the longer. Hidden text, that
    of special tokens, is searched as well but never returned.

    Args:
        stop_strings: any number of them.

    Attributes:
        found: the stop string that ended the text; None while there is none.

    Raises:
        InputError: one of them is empty.
    """

    def __init__(self, stop_strings: Sequence[str] = ()) -> None:
        if "" in stop_strings:
            raise InputError("stop_strings contains ''; give each at least one character")
        self._stop_strings = tuple(stop_strings)
        self._held = ""
        self._hidden: list[bool] = []  # of each held character
        self.found: str | None = None

    def add(self, text: str, hidden_text: str = "") -> str:
        """Return text that cannot be the beginning of a stop string; nothing once one is found.

        Args:
            text: what goes on after all that was added before.
            hidden_text: what follows it.
        """
        if self.found is not None:
            return ""
        if not self._stop_strings:
            return text
        self._held += text + hidden_text
        self._hidden += [False] * len(text) + [True] * len(hidden_text)
        starts = {stop: self._held.find(stop) for stop in self._stop_strings}
        ends = [(at + len(stop), at, stop) for stop, at in starts.items() if at >= 0]
        if not ends:
            return self._release(len(self._held) - self._num_undecided())
        _, start, self.found = min(ends)
        released = self._release(start)
        self._held, self._hidden = "", []
        return released

    def finish(self) -> str:
        """Return what is held back: the text has ended without a stop string."""
        return self._release(len(self._held))

    def to_json(self) -> dict[str, Any]:
        """Return the state as JSON-able values."""
        return {"held": self._held, "hidden": list(self._hidden), "found": self.found}

    def load_json(self, state: dict[str, Any]) -> None:
        """Take over the state that `to_json` returned."""
        self._held, self._hidden = state["held"], list(state["hidden"])
        self.found = state["found"]

    def _release(self, num_characters: int) -> str:
        """Take characters from the front; return those that are not hidden."""
        taken = zip(self._held[:num_characters], self._hidden, strict=False)
        released = "".join(character for character, is_hidden in taken if not is_hidden)
        self._held, self._hidden = self._held[num_characters:], self._hidden[num_characters:]
        return released

    def _num_undecided(self) -> int:
        """Return the length of the longest end of the text that a stop string begins with."""
        longest = max((len(stop) - 1 for stop in self._stop_strings), default=0)
        for length in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self._stop_strings):
                return length
        return 0


class TextPieces:
    """Iterate over the text of tokens while they are generated.

    Args:
        tokens: ids, as `Stream.generate` yields them; no more are taken after a stop string.
        lm: whose tokens they are.
        stop_strings: the text ends before the first of them; they may contain special tokens.
        stop_token_ids: the text ends with the first of them, which has no text itself; None for
            the model's eos tokens.

    Attributes:
        finish_reason: why the text has ended; None while it has not.
    """

    def __init__(
        self,
        tokens: Iterable[int],
        lm: LanguageModel,
        *,
        stop_strings: Sequence[str] = (),
        stop_token_ids: Collection[int] | None = None,
    ) -> None:
        self._tokens = tokens
        self._detokenizer = Detokenizer(lm.tokenizer)
        self._stop_token_ids = lm.eos_token_ids if stop_token_ids is None else stop_token_ids
        self._stops = StopStrings(stop_strings)
        self._interrupted = False
        self.finish_reason: FinishReason | None = None

    @property
    def stop_string(self) -> str | None:
        """The stop string that ended the text, if one did."""
        return self._stops.found

    def interrupt(self) -> None:
        """End the text after the token that is generated now; a signal handler may call this."""
        self._interrupted = True

    def __iter__(self) -> Iterator[str]:
        reason = FinishReason.LENGTH
        for token in self._tokens:
            is_stop = token in self._stop_token_ids
            text = "" if is_stop else self._detokenizer.add(token)
            if piece := self._stops.add(text, self._detokenizer.hidden_text(token)):
                yield piece
            if is_stop or self._stops.found is not None:
                reason = FinishReason.STOP
                break
            if self._interrupted:
                reason = FinishReason.CANCELLED
                break
        self.finish_reason = reason
        if rest := self._stops.add(self._detokenizer.finish()) + self._stops.finish():
            yield rest


def generate_text(
    stream: Stream,
    lm: LanguageModel,
    max_new_tokens: int | None = None,
    *,
    sampling: SamplingParams = GREEDY,
    stop_strings: Sequence[str] = (),
    stop_token_ids: Collection[int] = (),
    ignore_eos: bool = False,
    generator: torch.Generator | None = None,
) -> TextPieces:
    """Generate text from where a stream stands, piece by piece, each of whole characters.

    Tokens of a stop string have become part of the stream, though their text is not returned.

    Args:
        stream: a single one that has been fed; it goes on with each piece that is taken.
        lm: the model of the stream with its tokenizer.
        max_new_tokens: upper bound on the tokens; None for no bound.
        sampling: how tokens are chosen.
        stop_strings: the text ends before the first of them; they may contain special tokens.
        stop_token_ids: the text ends with the first of these, besides the model's eos tokens.
        ignore_eos: go on after an eos token.
        generator: source of randomness.

    Raises:
        InputError: nothing has been fed, or a stop string is empty.
    """
    stops = {*stop_token_ids, *(() if ignore_eos else lm.eos_token_ids)}
    tokens = stream.generate(
        sys.maxsize if max_new_tokens is None else max_new_tokens,
        sampling=sampling,
        stop_token_ids=stops,
        generator=generator,
    )
    return TextPieces(tokens, lm, stop_strings=stop_strings, stop_token_ids=stops)
