"""A replay of the whole log loses nothing, and a short tail loses something."""

from __future__ import annotations

from pathlib import Path

import torch

from benchmarks.tail_replay import compared, measure
from streamingllm import StreamConfig, load_model
from tests.reference.tiny_chat import write_tiny_chat

PLACES, SCORED = (40, 70, 100), 12


def test_a_tail_of_the_whole_log_loses_nothing_and_a_short_one_does(tmp_path: Path) -> None:
    lm = load_model(write_tiny_chat(tmp_path / "tiny-chat"), dtype="float64")
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(5, 60, (120,), generator=generator)
    exact, by_tail = measure(lm, ids, PLACES, (8, 96), SCORED, StreamConfig(4, 28))
    whole, short = compared(exact, by_tail[96]), compared(exact, by_tail[8])
    assert whole["likeliest_token_agrees"] == 1
    assert whole["greatest_change_of_a_token"] < 1e-9
    assert short["greatest_change_of_a_token"] > 1e-6
    assert len(exact.nll) == len(PLACES)
    assert all(len(part) == SCORED for part in exact.nll)
