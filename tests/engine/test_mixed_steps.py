"""Steps that tokens of prompts join."""

from __future__ import annotations

from typing import Any

import pytest

from streamingllm import Engine, StreamConfig
from streamingllm.engine.prefill_budget import PrefillWork
from streamingllm.graphs.decode_step import DecodeStep
from tests.engine.driver import Record, random_ids
from tests.reference.tiny_lm import tiny_lm

CONFIG = StreamConfig(3, 13, max_rewind_tokens=6, chunk_size=40)


@pytest.mark.parametrize(
    ("tokens_per_slot", "advanced"),
    [(1, (1, 1, 1)), (4, (4, 4, 1)), (64, (9, 0, 0))],  # a step on a GPU takes one
)
def test_prompts_share_a_step(
    monkeypatch: pytest.MonkeyPatch, tokens_per_slot: int, advanced: tuple[int, ...]
) -> None:
    monkeypatch.setattr(DecodeStep, "max_tokens_per_slot", tokens_per_slot)
    with Engine(tiny_lm(), CONFIG, max_streams=4) as engine:
        if engine.batching_unsupported_reason is not None:
            pytest.skip(engine.batching_unsupported_reason)
        record = Record(engine)
        record.start(random_ids(5, 0))
        record.step()
        for seed in range(1, 4):
            record.start(random_ids(50, seed))
        chunks = [PrefillWork("chunk", 8)] * 3

        def choose(*args: Any, **numbers: int) -> PrefillWork:
            return chunks.pop() if chunks else PrefillWork("mixed", 9)

        monkeypatch.setattr(engine._scheduler._budget, "next", choose)
        for _ in range(3):
            record.step()  # each prompt has its sinks in the cache
        prompts = engine._scheduler.running[1:]
        before = [len(prompt.pending) for prompt in prompts]
        assert before == [42, 42, 42]
        record.step()
        after = [len(prompt.pending) for prompt in prompts]
        assert tuple(b - a for b, a in zip(before, after, strict=True)) == advanced
        for _ in range(50):
            record.step()
        assert not any(prompt.is_prefilling for prompt in prompts)
        record.check()


def test_a_prompt_that_cannot_join_waits_for_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, int]] = []
    with Engine(tiny_lm(), CONFIG, max_streams=3) as engine:
        record = Record(engine)
        record.start(random_ids(5, 0))
        record.step()
        record.start(random_ids(50, 1))

        def choose(num_decoding: int, **numbers: int) -> PrefillWork:
            asked.append(numbers)
            return PrefillWork("chunk", 16)

        monkeypatch.setattr(engine._scheduler._budget, "next", choose)
        record.step()
        record.step()
        assert asked[0] == {"num_joining": 0, "num_pending": 50}  # its sinks are not in the cache
        assert asked[1]["num_pending"] == 34
        record.check()
