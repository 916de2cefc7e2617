"""Streams of one model in several threads: each computes what it computes alone."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from streamingllm import Stream, StreamConfig
from streamingllm.kernels import native
from tests.reference.families import model_of
from tests.reference.family import VOCAB_SIZE

CONFIG = StreamConfig(num_sink_tokens=2, window_size=6)
NUM_ROUNDS, NUM_TOKENS = 30, 12


@pytest.fixture(autouse=True)
def _threads_take_turns_often() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def tokens(seed: int) -> Tensor:
    return torch.randint(0, VOCAB_SIZE, (40,), generator=torch.Generator().manual_seed(seed))


def stepped(stream: Stream, ids: Tensor) -> Tensor:
    return torch.stack([stream.feed(token[None], logits="last") for token in ids])


def shadows(model: PreTrainedModel) -> list[list[str]]:
    return [sorted(vars(module)) for module in model.modules()]


@pytest.mark.skipif(not native.load(), reason="needs the native kernels")
def test_uncompiled_steps_of_two_streams() -> None:
    model = model_of.__wrapped__("llama", torch.float32)
    ids = [tokens(0), tokens(1)]
    by_itself, before = model(ids[0][None]).logits, shadows(model)
    streams = [Stream(model, CONFIG) for _ in ids]
    for stream, row in zip(streams, ids, strict=True):
        stream.feed(row[:NUM_TOKENS], logits="none")
    expected = [
        stepped(stream.fork(), row[NUM_TOKENS:]) for stream, row in zip(streams, ids, strict=True)
    ]
    together = threading.Barrier(len(ids))

    def run(stream: Stream, row: Tensor) -> Tensor:
        together.wait()
        return stepped(stream, row[NUM_TOKENS:])

    with ThreadPoolExecutor(len(ids)) as pool:
        for _ in range(NUM_ROUNDS):
            forks = [stream.fork() for stream in streams]
            found = list(pool.map(run, forks, ids))
            for each, alone in zip(found, expected, strict=True):
                assert torch.equal(each, alone)
    del streams, forks, stream
    assert shadows(model) == before
    assert torch.equal(model(ids[0][None]).logits, by_itself)
