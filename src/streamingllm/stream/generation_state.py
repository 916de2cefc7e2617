"""State of one text that is being generated: its tokens, its text, and its end."""

from __future__ import annotations

from copy import copy, deepcopy
from typing import Any

import torch
from torch import Tensor

from streamingllm.finish_reason import FinishReason
from streamingllm.models import LanguageModel
from streamingllm.stream.grammar import TokenMatcher
from streamingllm.stream.next_token import TokenChooser
from streamingllm.stream.sampling import SamplingParams
from streamingllm.stream.text import Detokenizer, StopStrings


class GenerationState:
    """Hold all that the rest of a text depends on except the stream's cache.

    Args:
        lm: model and tokenizer.
        params: sampling parameters.
        window_size: generated tokens that the frequency and presence penalties count.
        matcher: position in `params.grammar`; None without a grammar.

    Attributes:
        params: sampling parameters.
        chooser: chooses the next token.
        num_generated_tokens: tokens generated so far.
    """

    def __init__(
        self,
        lm: LanguageModel,
        params: SamplingParams,
        window_size: int,
        matcher: TokenMatcher | None = None,
    ) -> None:
        self.params = params
        self.num_generated_tokens = 0
        self._matched: list[int] = []
        self._eos_token_ids = set(params.stop_token_ids)
        if not params.ignore_eos:
            self._eos_token_ids |= lm.eos_token_ids
        self._tokenizer = lm.tokenizer
        self._detokenizer = Detokenizer(lm.tokenizer, params.shown_token_ids)
        self._stops = StopStrings(params.stop_strings)
        generator = _seeded(params, lm.model.device) if params.temperature > 0.0 else None
        self.chooser = TokenChooser(params, window_size, generator, matcher)

    @property
    def is_full(self) -> bool:
        """Return whether `max_new_tokens` are generated."""
        most = self.params.max_new_tokens
        return most is not None and self.num_generated_tokens >= most

    @property
    def stop_string(self) -> str | None:
        """The stop string that ended the text, if one did."""
        return self._stops.found

    def append(self, token: int) -> tuple[str, FinishReason | None]:
        """Add a token; return the text that is certain now, and why it ends here, if it does.

        Raises:
            InputError: the grammar has become too complex to follow.
        """
        matcher = self.chooser.matcher
        self.num_generated_tokens += 1
        self.chooser.append([token])
        if matcher is not None:
            matcher.append(token)
            self._matched.append(token)
        is_eos = token in self._eos_token_ids
        text = self._stops.add(
            "" if is_eos else self._detokenizer.add(token), self._detokenizer.hidden_text(token)
        )
        is_stopped = is_eos or (matcher is not None and matcher.is_finished)
        if is_stopped or self.is_full:
            text += self.flush()
        if is_stopped or self._stops.found is not None:
            return text, FinishReason.STOP
        return text, FinishReason.LENGTH if self.is_full else None

    def flush(self) -> str:
        """Return the text that was held back; no text follows."""
        return self._stops.add(self._detokenizer.finish()) + self._stops.finish()

    def clone(self) -> GenerationState:
        """Return an independent state that would go on in the same way."""
        other = copy(self)
        shared = {id(self._tokenizer): self._tokenizer}
        other._detokenizer, other._stops = deepcopy((self._detokenizer, self._stops), shared)
        other.chooser, other._matched = self.chooser.clone(), list(self._matched)
        return other

    def to_json(self) -> dict[str, Any]:
        """Return the state as JSON-able values; `from_json` reads them."""
        generator = self.chooser.generator
        return {
            "params": self.params.to_json(),
            "num_generated_tokens": self.num_generated_tokens,
            "counted": self.chooser.generated,
            "matched": list(self._matched),
            "detokenizer": self._detokenizer.to_json(),
            "stops": self._stops.to_json(),
            "generator": None if generator is None else _hex_of(generator.get_state()),
        }

    @classmethod
    def from_json(
        cls,
        lm: LanguageModel,
        state: dict[str, Any],
        window_size: int,
        matcher: TokenMatcher | None = None,
    ) -> GenerationState:
        """Return the state that `to_json` wrote.

        Args:
            lm: model and tokenizer.
            state: JSON-able values.
            window_size: generated tokens that the frequency and presence penalties count.
            matcher: at the beginning of the grammar; the generated tokens are replayed through it.
        """
        generation = cls(lm, SamplingParams.from_json(state["params"]), window_size, matcher)
        generation.num_generated_tokens = state["num_generated_tokens"]
        generation.chooser.extend(state["counted"])
        generation._matched = list(state["matched"])
        if matcher is not None:
            for token in generation._matched:
                matcher.append(token)
        generation._detokenizer.load_json(state["detokenizer"])
        generation._stops.load_json(state["stops"])
        if generation.chooser.generator is not None and state["generator"] is not None:
            generation.chooser.generator.set_state(_tensor_of(state["generator"]))
        return generation


def _seeded(params: SamplingParams, device: torch.device) -> torch.Generator:
    generator = torch.Generator(device)
    if params.seed is None:
        generator.seed()
    else:
        generator.manual_seed(params.seed)
    return generator


def _hex_of(state: Tensor) -> str:
    return bytes(state.cpu().numpy()).hex()


def _tensor_of(text: str) -> Tensor:
    return torch.frombuffer(bytearray.fromhex(text), dtype=torch.uint8)
