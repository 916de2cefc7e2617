"""Many streams with prefixes of their own join, move, fork and leave in one engine."""

from __future__ import annotations

import gc

import pytest
import torch

from benchmarks.many_streams import ACTIONS, CONFIG, MAX_PINNED_TOKENS, ManyStreams
from streamingllm import Engine
from tests.reference.tiny_lm import tiny_lm


def tensor_bytes() -> int:
    gc.collect()
    storages = {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
        for tensor in gc.get_objects()
        if issubclass(type(tensor), torch.Tensor)  # isinstance would ask proxies
    }
    return sum(storages.values())


@pytest.mark.parametrize("seed", [0, 1])
def test_every_stream_equals_its_run_alone(seed: int) -> None:
    lm = tiny_lm()
    with Engine(lm, CONFIG, max_streams=64, max_pinned_tokens=MAX_PINNED_TOKENS) as engine:
        many = ManyStreams(lm, engine, 64, seed)
        lengths = {session.num_pinned_tokens for session in many.sessions}
        assert len({tuple(session.ids) for session in many.sessions}) == 64
        assert lengths == set(range(1, MAX_PINNED_TOKENS + 1))
        before = None
        for number in range(500):
            many.step()
            if number == 10:
                before = tensor_bytes()
        many.finish()
        engine.step()
        assert many.counts["different"] == 0
        assert many.counts["equal"] > 500
        assert all(many.counts[action] > 0 for action in ACTIONS)
        assert engine.stream_ids == []
        assert engine.stats().num_free_slots == 64
        assert before is not None
        assert tensor_bytes() <= before
