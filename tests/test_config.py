"""Every field of a configuration is checked once, by name."""

from __future__ import annotations

from typing import Any

import pytest

from streamingllm import StreamConfig
from streamingllm.errors import ConfigError


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"window_size": 0}, "window_size=0 is out of range; .* >= 1"),
        ({"window_size": 2.5}, "window_size=2.5"),
        ({"window_size": True}, "window_size=True"),
        ({"num_sink_tokens": -1}, "num_sink_tokens=-1 is out of range; .* >= 0"),
        ({"max_rewind_tokens": -1}, "max_rewind_tokens=-1"),
        ({"chunk_size": 0}, "chunk_size=0"),
        ({"strategy": "magic"}, "strategy='magic' is unknown; choose one of sinks, dense"),
        ({"interpolation_factor": 0.5}, "interpolation_factor=0.5"),
        ({"interpolation_factor": float("nan")}, "interpolation_factor=nan"),
        ({"sink_positions": (0, 1)}, "has 2 entries"),
        ({"sink_positions": (0, 5, 5, 6)}, "strictly increasing"),
        ({"sink_positions": (-1, 0, 1, 2)}, "strictly increasing"),
    ],
)
def test_a_bad_field_is_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
        StreamConfig(**fields)


def test_cache_size_is_sinks_and_window() -> None:
    assert StreamConfig(4, 1020).cache_size == 1024


def test_with_cache_size_gives_the_window_the_rest() -> None:
    config = StreamConfig.with_cache_size(1024, 37, max_rewind_tokens=5)
    assert (config.num_sink_tokens, config.window_size, config.max_rewind_tokens) == (37, 987, 5)


@pytest.mark.parametrize("sinks", [1024, 2000])
def test_a_pinned_prefix_must_leave_room(sinks: int) -> None:
    with pytest.raises(ConfigError, match=f"num_sink_tokens={sinks} leaves no entry of"):
        StreamConfig.with_cache_size(1024, sinks)
