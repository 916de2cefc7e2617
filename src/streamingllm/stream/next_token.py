"""Choice of the next token of one or many streams; transformers' processors do the arithmetic."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from streamingllm.errors import StreamingLLMError
from streamingllm.kernels.operators import argmax
from streamingllm.kernels.threads import one_thread
from streamingllm.stream.grammar import TokenMatcher
from streamingllm.stream.sampling import SamplingParams


@dataclass(frozen=True)
class TokenLogprobs:
    """Report how probable a generated token was, before penalties and temperature.

    Args:
        token_id: the generated token.
        logprob: natural logarithm of its probability.
        top: (token id, logarithm) of the most probable tokens, in descending order.
    """

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...]


class TokenChooser:
    """Choose the next tokens of streams that share parameters and a source of randomness.

    Args:
        params: how tokens are chosen.
        window_size: generated tokens that the frequency and presence penalties count.
        generator: source of randomness, on the device of the logits; None for torch's own.
        matcher: position in `params.grammar`, for a single stream.
    """

    def __init__(
        self,
        params: SamplingParams,
        window_size: int,
        generator: torch.Generator | None = None,
        matcher: TokenMatcher | None = None,
    ) -> None:
        self.params = params
        self.generator = generator
        self.matcher = matcher
        self._generated: deque[list[int]] = deque(maxlen=window_size)

    @property
    def is_greedy(self) -> bool:
        """Return whether the most probable token is chosen, whatever came before."""
        return self.params.is_greedy and self.matcher is None

    @property
    def generated(self) -> list[list[int]]:
        """Tokens that the penalties count, one list [batch] for each step."""
        return list(self._generated)

    def choose(self, logits: Tensor, recent_ids: Sequence[Iterable[int]]) -> Tensor:
        """Return the next token of each stream, int64, [batch].

        Args:
            logits: [batch, vocab].
            recent_ids: last tokens of each stream, equally many; the repetition penalty reads them.
        """
        with one_thread():
            if self.is_greedy:
                greedy: Tensor = argmax(logits)
                return greedy
            recent = _rows(recent_ids, logits) if self.params.reads_recent else _none(logits)
            generated = None
            if self.params.reads_generated and self._generated:
                generated = torch.tensor([*self._generated], device=logits.device).T
            allowed = None if self.matcher is None else self.matcher.allowed().to(logits.device)
            return choose(
                self.params,
                logits,
                recent_ids=recent,
                generator=self.generator,
                generated_ids=generated,
                allowed=allowed,
            )

    def append(self, tokens: Tensor | Sequence[int]) -> None:
        """Count the chosen tokens, [batch]; those of an ended stream count nothing."""
        if self.params.reads_generated:
            self._generated.append(tokens.tolist() if isinstance(tokens, Tensor) else [*tokens])

    def extend(self, generated: Iterable[Sequence[int]]) -> None:
        """Count the tokens of several steps."""
        for tokens in generated:
            self.append(tokens)

    def clone(self) -> TokenChooser:
        """Return an independent chooser that would make the same choices."""
        generator = self.generator
        if generator is not None:
            state = generator.get_state()
            generator = torch.Generator(generator.device)
            generator.set_state(state)
        matcher = None if self.matcher is None else self.matcher.clone()
        assert self._generated.maxlen is not None
        other = TokenChooser(self.params, self._generated.maxlen, generator, matcher)
        other.extend(self._generated)
        return other


def choose_tokens(
    choosers: Sequence[TokenChooser], logits: Tensor, recent_ids: Sequence[Iterable[int]]
) -> list[int | Exception]:
    """Return the next token of each of several streams, or the error of a stream that has none.

    Args:
        choosers: one for each stream.
        logits: [batch, vocab].
        recent_ids: last tokens of each stream.
    """
    # One pass over the logits serves all greedy streams and finds what is not finite.
    greedy = logits.argmax(dim=-1)
    is_finite = logits.gather(1, greedy[:, None])[:, 0].isfinite().tolist()
    tokens: list[int | Exception] = [*greedy.tolist()]
    for i, chooser in enumerate(choosers):
        if not is_finite[i]:
            tokens[i] = StreamingLLMError("logits are not finite; the stream ends here")
        elif not chooser.is_greedy:
            try:
                tokens[i] = int(chooser.choose(logits[i : i + 1], recent_ids[i : i + 1])[0])
            except Exception as error:
                tokens[i] = error
    return tokens


def choose(
    params: SamplingParams,
    logits: Tensor,
    *,
    recent_ids: Tensor,
    generator: torch.Generator | None = None,
    generated_ids: Tensor | None = None,
    allowed: Tensor | None = None,
) -> Tensor:
    """Return the next token of each stream, int64, [batch].

    Args:
        params: how tokens are chosen.
        logits: [batch, vocab].
        recent_ids: tokens that the repetition penalty reads, int64, [batch, recent].
        generator: source of randomness, on the device of the logits.
        generated_ids: tokens that the frequency and presence penalties count, int64,
            [batch, generated]; None for none.
        allowed: False for tokens that may not be chosen, bool, [batch, vocab]; None for all.
    """
    scores: Tensor = _penalties(params)(recent_ids, logits.float())  # type: ignore[arg-type]
    if params.reads_generated and generated_ids is not None:
        counts = torch.zeros_like(scores)
        ones = torch.ones_like(generated_ids, dtype=scores.dtype)
        counts.scatter_add_(1, generated_ids, ones)
        scores = scores - params.frequency_penalty * counts - params.presence_penalty * (counts > 0)
    if allowed is not None:
        scores = scores.masked_fill(~allowed, -torch.inf)
    if params.temperature == 0.0:
        return scores.argmax(dim=-1)
    scores = _warpers(params)(recent_ids, scores)  # type: ignore[arg-type]
    return torch.multinomial(scores.softmax(dim=-1), 1, generator=generator)[:, 0]


def token_logprobs(logits: Tensor, token_id: int, num_top: int) -> TokenLogprobs:
    """Report a token and the `num_top` most probable ones from logits [vocab]."""
    logprobs = logits.float().log_softmax(dim=-1)
    best = logprobs.topk(min(num_top, len(logprobs)))
    top = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return TokenLogprobs(token_id, float(logprobs[token_id]), tuple(top))


def _penalties(params: SamplingParams) -> LogitsProcessorList:
    processors = LogitsProcessorList()
    if params.reads_recent:
        processors.append(RepetitionPenaltyLogitsProcessor(params.repetition_penalty))
    if params.logit_bias:
        pairs = params.logit_bias.items()
        biases: list[list[list[int] | float]] = [[[token], float(bias)] for token, bias in pairs]
        processors.append(SequenceBiasLogitsProcessor(biases))
    return processors


def _warpers(params: SamplingParams) -> LogitsProcessorList:
    processors = LogitsProcessorList()
    if params.temperature != 1.0:
        processors.append(TemperatureLogitsWarper(float(params.temperature)))
    if params.top_k:
        processors.append(TopKLogitsWarper(params.top_k))
    if params.top_p < 1.0:
        processors.append(TopPLogitsWarper(params.top_p))
    if params.min_p:
        processors.append(MinPLogitsWarper(params.min_p))
    return processors


def _rows(ids: Sequence[Iterable[int]], like: Tensor) -> Tensor:
    return torch.tensor([list(row) for row in ids], dtype=torch.int64, device=like.device)


def _none(like: Tensor) -> Tensor:
    return torch.empty((len(like), 0), dtype=torch.int64, device=like.device)
