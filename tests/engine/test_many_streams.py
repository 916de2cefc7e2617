"""Many streams with prefixes of their own join, move, fork and leave in one engine."""

from __future__ import annotations

import gc

import torch

from benchmarks.many_streams import ACTIONS, CONFIG, MAX_PINNED_TOKENS, ManyStreams
from streamingllm import Engine
from tests.engine.driver import free
from tests.reference.tiny_lm import tiny_lm


def tensors() -> list[torch.Tensor]:
    """Return all tensors of this process, but no fake ones of an exporter."""
    gc.collect()
    return [x for x in gc.get_objects() if type(x) in (torch.Tensor, torch.nn.Parameter)]


def tensor_bytes(engine: Engine) -> int:
    """Return the bytes of all tensors after steps that leave the same behind each time."""
    engine.generate([[1, 2, 3] * 10], free(4))
    storages = [tensor.untyped_storage() for tensor in tensors()]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def test_every_stream_equals_its_run_alone_and_memory_does_not_grow() -> None:
    others = tensors()  # those of other tests, held so that none of them goes in between
    lm = tiny_lm()
    memory = []
    with Engine(lm, CONFIG, max_streams=64, max_pinned_tokens=MAX_PINNED_TOKENS) as engine:
        for seed in range(3):
            many = ManyStreams(lm, engine, 64, seed)
            lengths = {session.num_pinned_tokens for session in many.sessions}
            assert len({tuple(session.ids) for session in many.sessions}) == 64
            assert lengths == set(range(1, MAX_PINNED_TOKENS + 1))
            for _ in range(250):
                many.step()
            many.finish()
            assert many.counts["different"] == 0
            assert many.counts["equal"] > 500
            assert all(many.counts[action] > 0 for action in ACTIONS)
            assert engine.stream_ids == []
            assert engine.stats().num_free_slots == 64
            del many
            memory.append(tensor_bytes(engine))
    assert memory[0] == memory[1] == memory[2]
    del others
