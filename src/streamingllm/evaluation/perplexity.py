"""Measure how well a model predicts a text of any length, under one strategy."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from streamingllm.checks import check_integer
from streamingllm.config import StreamConfig
from streamingllm.errors import InputError
from streamingllm.kernels import native, operators, reference
from streamingllm.stream import Stream

SEGMENT_TOKENS = 4096


@dataclass(frozen=True, eq=False)
class PerplexityResult:
    """Hold the scores of one text under one strategy.

    Args:
        nll: negative log-likelihood of each token but the first, in nats, float32, [tokens - 1].
        segment_size: tokens in each of `segments`.
        seconds: time spent in the model and on the scores.
        cache_bytes: bytes of keys and values held at the end.
    """

    nll: NDArray[np.float32]
    segment_size: int
    seconds: float
    cache_bytes: int

    @property
    def tokens(self) -> int:
        """Tokens of the text that have been prefilled."""
        return len(self.nll) + 1

    @property
    def perplexity(self) -> float:
        """Exponential of the mean negative log-likelihood."""
        return perplexity_of(self.nll)

    @property
    def segments(self) -> tuple[float, ...]:
        """Perplexity of each `segment_size` tokens of the text, fewer in the last."""
        # Token t is predicted at t - 1, and the very first one is not.
        starts = range(0, self.tokens, self.segment_size)
        parts = (self.nll[max(0, t - 1) : t + self.segment_size - 1] for t in starts)
        return tuple(perplexity_of(part) for part in parts)

    @property
    def tokens_per_second(self) -> float:
        """Tokens prefilled per second."""
        return self.tokens / self.seconds


class PerplexityRun:
    """Feed a text to a stream and score it chunk by chunk.

    Args:
        model: a causal language model.
        ids: the text, int64, [T], at least two tokens.
        config: strategy, window, and the tokens of one `step` (`chunk_size`).
        segment_size: tokens per segment of the result.

    Raises:
        ConfigError: `segment_size` is out of range.
        InputError: ids have the wrong shape.
        UnsupportedModelError: the model cannot do what the strategy asks.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        ids: Tensor,
        config: StreamConfig,
        segment_size: int = SEGMENT_TOKENS,
    ) -> None:
        if ids.ndim != 1 or len(ids) < 2:
            raise InputError(
                f"ids has shape {tuple(ids.shape)}; give a tensor [T] of at least 2 tokens"
            )
        check_integer("segment_size", segment_size, 2)
        self.stream = Stream(model, config)
        self.segment_size = segment_size
        self.seconds = 0.0
        self.num_prefilled_tokens = 0
        self._ids = ids.to(model.device)
        self._nll = np.empty(len(ids) - 1, dtype=np.float32)

    @property
    def num_tokens(self) -> int:
        """Tokens of the text."""
        return len(self._ids)

    @property
    def is_done(self) -> bool:
        """Tell whether the whole text has been scored."""
        return self.num_prefilled_tokens == self.num_tokens

    @property
    def tokens_per_second(self) -> float:
        """Tokens prefilled per second so far."""
        return self.num_prefilled_tokens / self.seconds if self.seconds else 0.0

    @property
    def running_perplexity(self) -> float:
        """Perplexity of the current segment as far as it has been scored; NaN before the start."""
        scored = self._nll[: max(0, self.num_prefilled_tokens - 1)]
        start = max(0, self.num_prefilled_tokens - 1) // self.segment_size * self.segment_size
        return perplexity_of(scored[max(0, start - 1) :])

    def step(self) -> None:
        """Prefill and score the next chunk; only its logits are held."""
        started = time.perf_counter()
        first = self.num_prefilled_tokens
        chunk = self._ids[first : first + self.stream.config.chunk_size]
        targets = self._ids[first + 1 : first + 1 + len(chunk)]
        logits = self.stream.feed(chunk)
        # A chunk's last row predicts the next chunk's first token, the text's last row none.
        nll = token_nll(logits[: len(targets)], targets)
        self._nll[first : first + len(targets)] = nll.cpu().numpy()
        self.num_prefilled_tokens += len(chunk)
        self.seconds += time.perf_counter() - started

    def result(self) -> PerplexityResult:
        """Return the scores so far.

        Raises:
            InputError: fewer than two tokens have been prefilled.
        """
        if self.num_prefilled_tokens < 2:
            raise InputError(
                f"num_prefilled_tokens={self.num_prefilled_tokens} is less than 2; call step() "
                "first"
            )
        nll = self._nll[: self.num_prefilled_tokens - 1].copy()
        return PerplexityResult(nll, self.segment_size, self.seconds, self.stream.nbytes)


def measure_perplexity(
    model: PreTrainedModel,
    ids: Tensor,
    config: StreamConfig,
    *,
    segment_size: int = SEGMENT_TOKENS,
    on_progress: Callable[[PerplexityRun], None] | None = None,
) -> PerplexityResult:
    """Score every token of a text except the first, under one strategy.

    Args:
        model: a causal language model.
        ids: the text, int64, [T], at least two tokens.
        config: strategy, window and chunk size; the chunk size does not change the scores.
        segment_size: tokens per segment of the result.
        on_progress: called after each chunk.

    Raises:
        ConfigError, InputError, UnsupportedModelError: see `PerplexityRun`.

    Source: Xiao et al. (arXiv 2309.17453), section 4.1.
    """
    run = PerplexityRun(model, ids, config, segment_size)
    while not run.is_done:
        run.step()
        if on_progress is not None:
            on_progress(run)
    return run.result()


def token_nll(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the negative log-likelihood of each target, in nats.

    Args:
        logits: [seq, vocab].
        targets: int64, [seq].

    Returns:
        [seq], computed in float32, or in float64 where the logits are.
    """
    fused = logits.device.type == "cpu" and logits.dtype in (torch.float32, torch.bfloat16)
    fused = fused and not logits.requires_grad
    score = operators.token_nll if fused and native.load() else reference.token_nll
    nll: Tensor = score(logits, targets)
    return nll


def perplexity_of(nll: NDArray[np.float32]) -> float:
    """Return the exponential of the mean; NaN of nothing, infinity where a float has no room."""
    if not len(nll):
        return float("nan")
    with np.errstate(over="ignore"):
        return float(np.exp(nll.mean(dtype=np.float64)))
