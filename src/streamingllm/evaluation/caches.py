"""Caches to compare, each named by one word."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from streamingllm.config import STRATEGIES, StreamConfig
from streamingllm.errors import ConfigError

FRESH = "fresh"
_ALLOWED = (
    "give N+M (sinks and window), window:M, recompute:M, dense, interpolation:FACTOR, fresh:TOKENS"
    ", or a baseline with N+M such as random:4+1020"
)
# Every token costs a pass over a whole window there.
_RECOMPUTE_CHUNK_SIZE = 16


@dataclass(frozen=True)
class CacheChoice:
    """A strategy with its settings and the word that named it.

    Args:
        label: the word, as it appears in reports.
        config: strategy, sinks and window.
        is_fresh: each question starts a dense stream of its own. It holds the text that a cache of
            `config.window_size` tokens would hold.
    """

    label: str
    config: StreamConfig
    is_fresh: bool = False


def parse_cache(text: str) -> CacheChoice:
    """Parse the name of a cache, such as `4+1020`, `window:1024`, `dense` or `fresh:1024`.

    Raises:
        ConfigError: the name has another form, or a number is out of range.
    """
    strategy, _, shape = text.partition(":")
    if re.fullmatch(r"\d+\+\d+", text):
        strategy, shape = "sinks", text
    if strategy == FRESH and shape.isdecimal():
        config = StreamConfig(strategy="dense", num_sink_tokens=0, window_size=int(shape))
        return CacheChoice(text, config, is_fresh=True)
    if strategy not in STRATEGIES:
        raise ConfigError(f"cache={text!r} names no strategy; {_ALLOWED}")
    return CacheChoice(text, _config(text, strategy, shape))


def parse_caches(texts: Sequence[str]) -> list[CacheChoice]:
    """Parse names of caches, all different.

    Raises:
        ConfigError: one has another form, is given twice, or there is none.
    """
    if not texts or len(set(texts)) < len(texts):
        raise ConfigError(f"cache={list(texts)} is empty or repeats a name; give each cache once")
    return [parse_cache(text) for text in texts]


def _config(text: str, strategy: str, shape: str) -> StreamConfig:
    if strategy == "dense" and not shape:
        return StreamConfig(strategy="dense", num_sink_tokens=0)
    if strategy == "interpolation" and re.fullmatch(r"\d+(\.\d+)?", shape):
        factor = float(shape)
        return StreamConfig(strategy=strategy, num_sink_tokens=0, interpolation_factor=factor)
    if strategy in ("window", "recompute") and shape.isdecimal():
        chunk_size = _RECOMPUTE_CHUNK_SIZE if strategy == "recompute" else StreamConfig.chunk_size
        return StreamConfig(0, int(shape), strategy=strategy, chunk_size=chunk_size)
    sizes = re.fullmatch(r"(\d+)\+(\d+)", shape)
    if sizes is None or strategy in ("dense", "interpolation", "window", "recompute"):
        raise ConfigError(f"cache={text!r} has no such shape; {_ALLOWED}")
    return StreamConfig(int(sizes[1]), int(sizes[2]), strategy=strategy)
