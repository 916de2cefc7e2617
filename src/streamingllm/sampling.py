"""Choose the next token from logits; the arithmetic is transformers' own processors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from streamingllm.errors import ConfigError


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen; the default is greedy.

    Args:
        temperature: 0 picks the likeliest token; otherwise logits are divided by it.
        top_k: sample among the k likeliest tokens; 0 among all.
        top_p: sample among the likeliest tokens that together have this probability.
        min_p: drop tokens less likely than this share of the likeliest.
        repetition_penalty: divide the scores of recent tokens by it; 1 leaves them.

    Raises:
        ConfigError: a value is out of range.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        _check("temperature", self.temperature, 0.0 <= self.temperature <= 100.0, "0 to 100")
        _check("top_k", self.top_k, self.top_k >= 0, "0 or more")
        _check("top_p", self.top_p, 0.0 < self.top_p <= 1.0, "above 0, at most 1")
        _check("min_p", self.min_p, 0.0 <= self.min_p <= 1.0, "0 to 1")
        penalty = self.repetition_penalty
        _check("repetition_penalty", penalty, 0.0 < penalty <= 10.0, "above 0, at most 10")

    def choose(
        self, logits: Tensor, recent_ids: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """Return the next token of each stream, int64, [batch].

        Args:
            logits: [batch, vocab].
            recent_ids: tokens that the repetition penalty looks at, int64, [batch, recent].
            generator: source of randomness, on the device of the logits.
        """
        scores = self._processors()(recent_ids, logits.float())  # type: ignore[arg-type]
        if self.temperature == 0.0:
            return scores.argmax(dim=-1)
        return torch.multinomial(scores.softmax(dim=-1), 1, generator=generator)[:, 0]

    def _processors(self) -> LogitsProcessorList:
        processors = LogitsProcessorList()
        if self.repetition_penalty != 1.0:
            processors.append(RepetitionPenaltyLogitsProcessor(self.repetition_penalty))
        if self.temperature not in (0.0, 1.0):
            processors.append(TemperatureLogitsWarper(self.temperature))
        if self.temperature != 0.0:
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
