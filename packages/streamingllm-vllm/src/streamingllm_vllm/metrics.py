"""Metrics of streaming mode, among vLLM's own on /metrics and as a line in its log."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

from prometheus_client import Counter, Gauge
from vllm.config import VllmConfig
from vllm.logger import init_logger
from vllm.v1.metrics.loggers import StatLoggerBase
from vllm.v1.metrics.stats import IterationStats, SchedulerStats

from streamingllm_vllm.rule import SinkWindowRule
from streamingllm_vllm.settings import StreamingSettings

_logger = init_logger("vllm.streamingllm")


@cache  # A registry refuses a name that is registered twice.
def _evicted_tokens() -> Counter:
    return Counter(
        "streamingllm_evicted_tokens", "Tokens that left the windows of finished requests."
    )


@cache
def _past_window() -> Counter:
    return Counter(
        "streamingllm_requests_past_window", "Finished requests whose window evicted tokens."
    )


@cache
def _cache_size() -> Gauge:
    return Gauge("streamingllm_cache_size_tokens", "Sinks and window of a request together.")


class EvictionStatLogger(StatLoggerBase):
    """Count what windows evicted. vLLM constructs it in the process of the API.

    A request is counted when it finishes, because vLLM's statistics name no request before that.
    """

    def __init__(self, vllm_config: VllmConfig, engine_index: int = 0) -> None:
        settings = StreamingSettings.read(os.environ)
        self._rule: SinkWindowRule | None = None
        self._news = [0, 0]
        if settings is not None:
            block_size = vllm_config.cache_config.block_size
            self._rule = SinkWindowRule(settings.num_sink_tokens, settings.window_size, block_size)
            _cache_size().set(self._rule.cache_size)
            _evicted_tokens(), _past_window()

    def record(
        self,
        scheduler_stats: SchedulerStats | None,
        iteration_stats: IterationStats | None,
        mm_cache_stats: Any = None,
        engine_idx: int = 0,
    ) -> None:
        """Count the requests that finished in a step."""
        if self._rule is None or iteration_stats is None:
            return
        for request in iteration_stats.finished_requests:
            # The token sampled last is never fed.
            num_fed = request.num_prompt_tokens + request.num_generation_tokens - 1
            evicted = self._rule.num_evicted_tokens(max(0, num_fed - 1))
            if evicted:
                _evicted_tokens().inc(evicted)
                _past_window().inc()
                self._news = [self._news[0] + 1, self._news[1] + evicted]

    def log(self) -> None:
        """Log what was counted since the last line, if anything."""
        if self._news[0]:
            _logger.info(
                "Streaming mode: %d finished requests went past their window, %d tokens evicted",
                *self._news,
            )
            self._news = [0, 0]

    def log_engine_initialized(self) -> None:
        """Log that streaming mode is on."""
        if self._rule is not None:
            _logger.info(
                "Streaming mode: %d sinks and a window of %d tokens, evicted by blocks of %d",
                self._rule.num_sink_tokens,
                self._rule.window_size,
                self._rule.block_size,
            )
