"""Metrics for Prometheus; no label holds a session or a key."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from streamingllm.sessions.session_types import ManagerStats
from streamingllm.sessions.turn_report import TurnReport

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_TOKEN_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1)


class Metrics:
    """Count requests and turns, and show the counts of a session manager.

    Attributes:
        registry: of this server alone.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._stats: ManagerStats | None = None
        self._requests = Counter(
            "streamingllm_requests",
            "Requests by route and status.",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "streamingllm_request_seconds",
            "Duration of requests, streams included.",
            ("route",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._first_token = Histogram(
            "streamingllm_time_to_first_token_seconds",
            "Time from a turn's request to its first text.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._per_token = Histogram(
            "streamingllm_time_per_token_seconds",
            "Time of each further token.",
            buckets=_TOKEN_SECONDS,
            registry=self.registry,
        )
        self._turns = Counter(
            "streamingllm_turns", "Turns by their end.", ("reason",), registry=self.registry
        )
        self._evicted = Counter(
            "streamingllm_evicted_tokens",
            "Tokens that sessions no longer see.",
            registry=self.registry,
        )
        ProcessCollector(registry=self.registry)
        self.registry.register(self)

    def count_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request that has ended."""
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def count_turn(self, report: TurnReport) -> None:
        """Count a turn that has ended."""
        self._turns.labels(report.reason).inc()
        self._evicted.inc(report.num_evicted_tokens)
        if report.first_text_seconds is not None:
            self._first_token.observe(report.first_text_seconds)
        if report.seconds_per_token is not None:
            self._per_token.observe(report.seconds_per_token)

    def as_text(self, stats: ManagerStats) -> bytes:
        """Return all metrics in Prometheus' text format."""
        self._stats = stats
        return generate_latest(self.registry)

    def collect(self) -> Iterator[Metric]:
        """Yield the counts of the session manager."""
        stats = self._stats
        if stats is None:
            return
        engine = stats.engine
        tokens = CounterMetricFamily("streamingllm_tokens", "Tokens by kind.", labels=("kind",))
        tokens.add_metric(("prefilled",), engine.num_prefilled_tokens)
        tokens.add_metric(("generated",), engine.num_generated_tokens)
        yield tokens
        moves = CounterMetricFamily(
            "streamingllm_session_moves", "Moves of sessions.", labels=("source", "target")
        )
        for move, count in stats.moves.items():
            source, _, target = move.partition("->")
            moves.add_metric((source, target), count)
        yield moves
        sessions = GaugeMetricFamily("streamingllm_sessions", "Sessions.", labels=("tier",))
        for tier, count in stats.num_sessions.items():
            sessions.add_metric((tier,), count)
        yield sessions
        num_bytes = GaugeMetricFamily("streamingllm_cache_bytes", "Bytes.", labels=("tier",))
        for tier, count in stats.num_bytes.items():
            num_bytes.add_metric((tier,), count)
        yield num_bytes
        for name, help_text, value in (
            ("streamingllm_slots", "Slots.", engine.num_slots),
            ("streamingllm_waiting_turns", "Turns that wait for a slot.", stats.num_waiting),
            ("streamingllm_running_turns", "Turns that run.", stats.num_running),
            ("streamingllm_is_compiled", "1 if steps run compiled.", int(engine.is_compiled)),
        ):
            yield GaugeMetricFamily(name, help_text, value)
