"""Choose the tokens of one stream and turn them into text, until the text ends."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from copy import copy, deepcopy

import torch
from torch import Tensor

from streamingllm.engine.grammar import GrammarMatcher
from streamingllm.engine.params import FinishReason, GenerationParams
from streamingllm.errors import StreamingLLMError
from streamingllm.models import LanguageModel
from streamingllm.stream.text import Detokenizer, StopStrings


class GenerationState:
    """Hold all that the choice of a stream's next token depends on but its logits.

    Args:
        lm: whose tokens they are.
        params: what the caller asked for.
        window_size: tokens written that the frequency and presence penalties look back at.
        matcher: follows `params.grammar`, if there is one.
    """

    def __init__(
        self,
        lm: LanguageModel,
        params: GenerationParams,
        window_size: int,
        matcher: GrammarMatcher | None,
    ) -> None:
        self.params = params
        self.num_written_tokens = 0
        self._matcher = matcher
        self._written: deque[int] = deque(maxlen=window_size)
        self._eos_token_ids = set(params.stop_token_ids)
        if not params.ignore_eos:
            self._eos_token_ids |= lm.eos_token_ids
        self._tokenizer = lm.tokenizer
        self._detokenizer = Detokenizer(lm.tokenizer)
        self._stops = StopStrings(params.stop_strings)
        self._generator: torch.Generator | None = None
        if params.sampling.temperature > 0.0:
            self._generator = torch.Generator(lm.model.device)
            if params.seed is None:
                self._generator.seed()
            else:
                self._generator.manual_seed(params.seed)

    @property
    def is_argmax(self) -> bool:
        """Whether the argmax token is chosen, whatever came before."""
        return self.params.sampling.is_argmax and self._matcher is None

    @property
    def is_full(self) -> bool:
        """Whether no more tokens are wanted."""
        most = self.params.max_new_tokens
        return most is not None and self.num_written_tokens >= most

    def choose(self, logits: Tensor, recent_ids: Iterable[int]) -> int:
        """Return the next token.

        Args:
            logits: [1, vocab].
            recent_ids: the last tokens of the stream, read or written.
        """
        sampling = self.params.sampling
        token = sampling.choose(
            logits,
            _row(recent_ids if sampling.looks_at_recent else (), logits),
            self._generator,
            written_ids=_row(self._written, logits),
            allowed=None if self._matcher is None else self._matcher.allowed().to(logits.device),
        )
        return int(token[0])

    def append(self, token: int) -> tuple[str, FinishReason | None]:
        """Write a token; return the text that is certain now, and why it has ended, if it has.

        Raises:
            InputError: the grammar cannot be followed any further.
        """
        self.num_written_tokens += 1
        self._written.append(token)
        if self._matcher is not None:
            self._matcher.take(token)
        is_end = token in self._eos_token_ids
        text = "" if is_end else self._detokenizer.add(token)
        text = self._stops.add(text, self._detokenizer.hidden_text(token))
        is_stopped = is_end or (self._matcher is not None and self._matcher.is_finished)
        if is_stopped or self.is_full:
            text += self.flush()
        if is_stopped or self._stops.found is not None:
            return text, "stop"
        return text, "length" if self.is_full else None

    def flush(self) -> str:
        """Return the text that was held back; none follows."""
        return self._stops.add(self._detokenizer.finish()) + self._stops.finish()

    def clone(self) -> GenerationState:
        """Return an independent writer that would go on in the same way."""
        other = copy(self)
        other._written = self._written.copy()
        shared = {id(self._tokenizer): self._tokenizer}
        other._detokenizer, other._stops = deepcopy((self._detokenizer, self._stops), shared)
        other._matcher = None if self._matcher is None else self._matcher.clone()
        if self._generator is not None:
            other._generator = torch.Generator(self._generator.device)
            other._generator.set_state(self._generator.get_state())
        return other


def choose_tokens(
    writers: Sequence[GenerationState], logits: Tensor, recent_ids: Sequence[Iterable[int]]
) -> list[int | Exception]:
    """Return each stream's next token, or why it has none; none suffers from another's failure.

    Args:
        writers: of each stream.
        logits: [batch, vocab].
        recent_ids: the last tokens of each stream.
    """
    # One pass over the logits chooses for all greedy streams and finds what is not a number.
    argmax = logits.argmax(dim=-1)
    is_finite = logits.gather(1, argmax[:, None])[:, 0].isfinite().tolist()
    tokens: list[int | Exception] = [*argmax.tolist()]
    for i, writer in enumerate(writers):
        if not is_finite[i]:
            tokens[i] = StreamingLLMError("the model's logits are not finite: the stream ends here")
        elif not writer.is_argmax:
            try:
                tokens[i] = writer.choose(logits[i : i + 1], recent_ids[i])
            except Exception as error:
                tokens[i] = error
    return tokens


def _row(ids: Iterable[int], like: Tensor) -> Tensor:
    return torch.tensor([list(ids)], dtype=torch.int64, device=like.device)
