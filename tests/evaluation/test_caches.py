from __future__ import annotations

import re

import pytest

from streamingllm.config import StreamConfig
from streamingllm.errors import ConfigError
from streamingllm.evaluation.caches import parse_cache, parse_caches


@pytest.mark.parametrize(
    ("text", "config"),
    [
        ("4+1020", StreamConfig(4, 1020)),
        ("0+1024", StreamConfig(0, 1024)),
        ("sinks:2+10", StreamConfig(2, 10)),
        ("window:12", StreamConfig(0, 12, strategy="window")),
        ("recompute:12", StreamConfig(0, 12, strategy="recompute", chunk_size=16)),
        ("dense", StreamConfig(0, strategy="dense")),
        (
            "interpolation:2.5",
            StreamConfig(0, strategy="interpolation", interpolation_factor=2.5),
        ),
    ],
)
def test_a_word_names_a_cache(text: str, config: StreamConfig) -> None:
    found = parse_cache(text)
    assert (found.label, found.config, found.is_fresh) == (text, config, False)


def test_fresh_is_dense_with_a_bound_on_its_text() -> None:
    found = parse_cache("fresh:512")
    assert found.is_fresh
    assert (found.config.strategy, found.config.window_size) == ("dense", 512)


@pytest.mark.parametrize(
    "text", ["", "4", "4+", "dense:4", "window", "window:4+8", "fresh", "sinks", "fifo:4+8", "4+0"]
)
def test_other_words_are_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_cache(text)


def test_a_cache_is_given_once() -> None:
    assert [c.label for c in parse_caches(["dense", "4+8"])] == ["dense", "4+8"]
    for texts in ([], ["4+8", "4+8"]):
        with pytest.raises(ConfigError, match=re.escape(f"cache={texts}")):
            parse_caches(texts)
