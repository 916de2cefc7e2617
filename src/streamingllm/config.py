"""Config of a stream: the tokens that stay cached, and the size of a pass."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from streamingllm.checks import check_choice, check_integer
from streamingllm.errors import ConfigError

CACHE_QUANTIZATIONS = ("none", "int8")
EVICTIONS = ("token", "turn")
WEIGHT_QUANTIZATIONS = ("auto", "none", "native", "int8", "int4")
STRATEGIES = (
    "sinks",
    "dense",
    "window",
    "recompute",
    "interpolation",
    "random",
    "key-norm",
    "key-diff",
    "cascade",
)


@dataclass(frozen=True)
class StreamConfig:
    """Describe which tokens a stream keeps, checked once at construction.

    Args:
        num_sink_tokens: first tokens kept for ever (n). 0 is pure window attention, which breaks
            once the first tokens leave the window (paper, section 3.1).
        window_size: most recent tokens a query sees, itself included (m).
        sink_positions: stream positions to keep instead of the first n, strictly increasing.
        max_rewind_tokens: tokens that `rewind` can take back once eviction has begun; their keys
            and values are in the rewind buffer, which `rewind_nbytes` counts.
        quantize_cache: "none", or "int8" for a window of eight-bit keys and values, each row with a
            scale of its own; the sinks stay exact.
        eviction: "token" evicts the oldest token of a full window; "turn" evicts whole turns, whose
            first tokens `begin_turn` names: the window then begins with a turn and shrinks to no
            less than half of m (see `cache.turns`).
        eviction_grain: tokens that leave the window together under eviction by token: it begins at
            a multiple of this, so it holds up to this many less than m. Paged caches evict so.
        chunk_size: tokens per forward pass while feeding; changes speed and memory, not logits.
        strategy: one of `STRATEGIES`; all except `sinks` are baselines to compare with.
        interpolation_factor: divisor of positions under strategy `interpolation`.

    Raises:
        ConfigError: a field is out of range.

    Source: Xiao et al., "Efficient Streaming Language Models with Attention Sinks", section 3.2.
    """

    num_sink_tokens: int = 4
    window_size: int = 1020
    sink_positions: tuple[int, ...] | None = None
    max_rewind_tokens: int = 64
    quantize_cache: str = "none"
    eviction: str = "token"
    eviction_grain: int = 1
    chunk_size: int = 1024
    strategy: str = "sinks"
    interpolation_factor: float = 1.0

    def __post_init__(self) -> None:
        for name, lowest in _LOWEST.items():
            check_integer(name, getattr(self, name), lowest)
        check_choice("strategy", self.strategy, STRATEGIES)
        check_choice("quantize_cache", self.quantize_cache, CACHE_QUANTIZATIONS)
        check_choice("eviction", self.eviction, EVICTIONS)
        factor = self.interpolation_factor
        if not 1.0 <= factor < float("inf"):
            raise ConfigError(
                f"interpolation_factor={factor} is out of range; choose a finite number >= 1"
            )
        if self.eviction_grain > 1:
            self._check_eviction_grain()
        if self.sink_positions is not None:
            self._check_sink_positions(self.sink_positions)

    def _check_eviction_grain(self) -> None:
        if self.eviction_grain > self.window_size:
            raise ConfigError(
                f"eviction_grain={self.eviction_grain} is more than "
                f"window_size={self.window_size}; choose at most that"
            )
        for name, needed in (("eviction", "token"), ("strategy", "sinks")):
            if getattr(self, name) != needed:
                raise ConfigError(
                    f"eviction_grain={self.eviction_grain} needs {name}='{needed}'; it is "
                    f"{getattr(self, name)!r}"
                )

    def _check_sink_positions(self, positions: tuple[int, ...]) -> None:
        if len(positions) != self.num_sink_tokens:
            raise ConfigError(
                f"sink_positions has {len(positions)} entries; give one for each of "
                f"num_sink_tokens={self.num_sink_tokens}"
            )
        rising = all(a < b for a, b in pairwise(positions))
        if not rising or any(p < 0 for p in positions):
            raise ConfigError(
                f"sink_positions={positions} does not rise from 0 or above; give strictly "
                "increasing stream positions >= 0"
            )

    @property
    def cache_size(self) -> int:
        """Entries held per layer: n + m, never more."""
        return self.num_sink_tokens + self.window_size

    @classmethod
    def with_cache_size(
        cls, cache_size: int, num_sink_tokens: int = 4, **fields: object
    ) -> StreamConfig:
        """Split `cache_size` entries into sinks and a window that takes the rest.

        Raises:
            ConfigError: the sinks (or the pinned prefix) leave no room for a window.
        """
        check_integer("cache_size", cache_size, 1)
        if num_sink_tokens >= cache_size:
            raise ConfigError(
                f"num_sink_tokens={num_sink_tokens} leaves no entry of cache_size={cache_size} for "
                "the window; choose fewer sinks or a larger cache"
            )
        window_size = cache_size - num_sink_tokens
        return cls(num_sink_tokens=num_sink_tokens, window_size=window_size, **fields)  # type: ignore[arg-type]


_LOWEST = {
    "num_sink_tokens": 0,
    "window_size": 1,
    "max_rewind_tokens": 0,
    "eviction_grain": 1,
    "chunk_size": 1,
}
