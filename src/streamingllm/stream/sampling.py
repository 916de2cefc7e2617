"""Choose the next token from logits; the arithmetic is transformers' own processors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

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

from streamingllm.errors import ConfigError
from streamingllm.kernels.operators import argmax
from streamingllm.kernels.threads import one_thread


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen; the default is greedy.

    Args:
        temperature: 0 picks the argmax token; otherwise logits are divided by it.
        top_k: sample among the k argmax tokens; 0 among all.
        top_p: sample among the argmax tokens that together have this probability.
        min_p: drop tokens less likely than this share of the argmax.
        repetition_penalty: divide the scores of recent tokens, read or written, by it; 1 leaves
            them.
        frequency_penalty: lower the score of a token by this for each time it was written lately.
        presence_penalty: lower the score of a token by this if it was written lately.
        logit_bias: what is added to the scores of tokens, by id.

    Raises:
        ConfigError: a value is out of range.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        _check("temperature", self.temperature, 0.0 <= self.temperature <= 100.0, "0 to 100")
        _check("top_k", self.top_k, self.top_k >= 0, "0 or more")
        _check("top_p", self.top_p, 0.0 < self.top_p <= 1.0, "above 0, at most 1")
        _check("min_p", self.min_p, 0.0 <= self.min_p <= 1.0, "0 to 1")
        penalty = self.repetition_penalty
        _check("repetition_penalty", penalty, 0.0 < penalty <= 10.0, "above 0, at most 10")
        for name in ("frequency_penalty", "presence_penalty"):
            value = getattr(self, name)
            _check(name, value, -10.0 <= value <= 10.0, "-10 to 10")
        for token, bias in self.logit_bias.items():
            is_usable = token >= 0 and math.isfinite(bias)
            _check(f"logit_bias[{token!r}]", bias, is_usable, "a finite number for a token id >= 0")

    @property
    def is_argmax(self) -> bool:
        """Whether the argmax token is chosen, whatever came before."""
        return self.temperature == 0.0 and not (
            self.looks_at_recent or self.looks_at_written or self.logit_bias
        )

    @property
    def looks_at_recent(self) -> bool:
        """Whether a choice depends on `recent_ids`."""
        return self.repetition_penalty != 1.0

    @property
    def looks_at_written(self) -> bool:
        """Whether a choice depends on `written_ids`."""
        return self.frequency_penalty != 0.0 or self.presence_penalty != 0.0

    def choose(
        self,
        logits: Tensor,
        recent_ids: Tensor,
        generator: torch.Generator | None = None,
        *,
        written_ids: Tensor | None = None,
        allowed: Tensor | None = None,
    ) -> Tensor:
        """Return the next token of each stream, int64, [batch].

        Args:
            logits: [batch, vocab].
            recent_ids: tokens that the repetition penalty looks at, int64, [batch, recent].
            generator: source of randomness, on the device of the logits.
            written_ids: tokens that the frequency and presence penalties look at, int64,
                [batch, written]; None for none.
            allowed: False for tokens that may not be chosen, bool, [batch, vocab]; None for all.
        """
        with one_thread():
            if self.is_argmax and allowed is None:
                greatest: Tensor = argmax(logits)
                return greatest
            return self._choose(logits, recent_ids, generator, written_ids, allowed)

    def _choose(
        self,
        logits: Tensor,
        recent_ids: Tensor,
        generator: torch.Generator | None,
        written_ids: Tensor | None,
        allowed: Tensor | None,
    ) -> Tensor:
        scores: Tensor = self._penalties()(recent_ids, logits.float())  # type: ignore[arg-type]
        if self.looks_at_written and written_ids is not None:
            counts = torch.zeros_like(scores)
            counts.scatter_add_(1, written_ids, torch.ones_like(written_ids, dtype=scores.dtype))
            scores = scores - self.frequency_penalty * counts - self.presence_penalty * (counts > 0)
        if allowed is not None:
            scores = scores.masked_fill(~allowed, -torch.inf)
        if self.temperature == 0.0:
            return scores.argmax(dim=-1)
        scores = self._warpers()(recent_ids, scores)  # type: ignore[arg-type]
        return torch.multinomial(scores.softmax(dim=-1), 1, generator=generator)[:, 0]

    def _penalties(self) -> LogitsProcessorList:
        processors = LogitsProcessorList()
        if self.looks_at_recent:
            processors.append(RepetitionPenaltyLogitsProcessor(self.repetition_penalty))
        if self.logit_bias:
            pairs = self.logit_bias.items()
            biases: list[list[list[int] | float]] = [
                [[token], float(bias)] for token, bias in pairs
            ]
            processors.append(SequenceBiasLogitsProcessor(biases))
        return processors

    def _warpers(self) -> LogitsProcessorList:
        processors = LogitsProcessorList()
        if self.temperature != 1.0:
            processors.append(TemperatureLogitsWarper(self.temperature))
        if self.top_k:
            processors.append(TopKLogitsWarper(self.top_k))
        if self.top_p < 1.0:
            processors.append(TopPLogitsWarper(self.top_p))
        if self.min_p:
            processors.append(MinPLogitsWarper(self.min_p))
        return processors


def _check(field: str, value: float, allowed: bool, range_text: str) -> None:
    if not allowed:
        raise ConfigError(f"{field}={value}: must be {range_text}")


GREEDY = Sampling()
