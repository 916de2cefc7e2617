"""Speed of a machine, measured on engines of known speed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from streamingllm.config import StreamConfig
from streamingllm.evaluation.capacity.calibration import _Meter


class KnownEngine:
    """Take 1 second for a step, and 0.25 more for each token of a prompt; four fit into one."""

    def __init__(self) -> None:
        self.now = 0.0
        self._left = 0

    def open_stream(self) -> str:
        return "prompt"

    def submit(self, stream_id: str, ids: list[int], params: object) -> None:
        self._left = len(ids)

    def step(self) -> list[Any]:
        taken = min(4, self._left)
        self._left -= taken
        self.now += 1.0 + 0.25 * taken
        ended = None if self._left else "length"
        others = SimpleNamespace(stream_id="other", finish_reason="stop")
        return [others, SimpleNamespace(stream_id="prompt", finish_reason=ended)]

    def close_stream(self, stream_id: str) -> None:
        assert not self._left


@pytest.mark.parametrize("tokens", [3, 16, 18])
def test_a_prompt_takes_what_it_adds_to_the_steps_of_others(tokens: int) -> None:
    engine: Any = KnownEngine()
    meter = _Meter(engine, StreamConfig(4, 28), lambda: engine.now, steps=2)
    assert meter._added(tokens, 1.0) == pytest.approx(0.25 * tokens)
    num_steps = -(-tokens // 4)
    assert meter._added(tokens, 0.0) == pytest.approx(num_steps + 0.25 * tokens)  # no others
