"""The settings of a strategy, as the command line takes and reports them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from streamingllm.config import StreamConfig
from streamingllm.errors import ConfigError

DEFAULT_SINK_TOKENS = StreamConfig.num_sink_tokens
DEFAULT_WINDOW_SIZE = StreamConfig.window_size
# Every token costs a pass over a whole window there, and progress should move every few seconds.
_RECOMPUTE_CHUNK_SIZE = 16
_SETTINGS: dict[str, tuple[str, ...]] = {
    "sinks": ("num_sink_tokens", "window_size", "quantize_cache"),
    "dense": (),
    "window": ("window_size", "quantize_cache"),
    "recompute": ("window_size",),
    "interpolation": ("interpolation_factor",),
    "random": ("num_sink_tokens", "window_size"),
    "key-norm": ("num_sink_tokens", "window_size"),
    "key-diff": ("num_sink_tokens", "window_size"),
    "cascade": ("num_sink_tokens", "window_size"),
}


def strategy_config(
    strategy: str,
    *,
    num_sink_tokens: int = DEFAULT_SINK_TOKENS,
    window_size: int = DEFAULT_WINDOW_SIZE,
    interpolation_factor: float | None = None,
    chunk_size: int | None = None,
    quantize_cache: str = "none",
) -> StreamConfig:
    """Check the settings of a strategy; one that it does not have may only be left at its default.

    Raises:
        ConfigError: a setting is out of range, or given to a strategy that does not have it.
    """
    if chunk_size is None:
        chunk_size = _RECOMPUTE_CHUNK_SIZE if strategy == "recompute" else StreamConfig.chunk_size
    config = StreamConfig(
        strategy=strategy,
        num_sink_tokens=num_sink_tokens,
        window_size=window_size,
        chunk_size=chunk_size,
        quantize_cache=quantize_cache,
        interpolation_factor=1.0 if interpolation_factor is None else interpolation_factor,
    )
    settings = _SETTINGS[strategy]
    idle = (
        ("num_sink_tokens", num_sink_tokens, (0, DEFAULT_SINK_TOKENS)),
        ("window_size", window_size, (DEFAULT_WINDOW_SIZE,)),
        ("interpolation_factor", interpolation_factor, (None,)),
        ("quantize_cache", quantize_cache, ("none",)),
    )
    for name, value, allowed in idle:
        if name not in settings and value not in allowed:
            raise ConfigError(f"{name}={value}: strategy {strategy!r} has none; leave it out")
    return config if "num_sink_tokens" in settings else replace(config, num_sink_tokens=0)


def reported_settings(config: StreamConfig) -> dict[str, Any]:
    """Return a strategy and its settings for a report; those that it does not have are None."""
    settings = _SETTINGS[config.strategy]
    names = ("window_size", "interpolation_factor", "quantize_cache")
    return {
        "strategy": config.strategy,
        "num_sink_tokens": config.num_sink_tokens,
        **{name: getattr(config, name) if name in settings else None for name in names},
        "chunk_size": config.chunk_size,
    }
