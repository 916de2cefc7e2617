"""The GPU figures, as far as a processor can produce them."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from transformers import LlamaConfig

from benchmarks.gpu import CONTESTANTS, Shape, attention_alone, compare
from streamingllm.evaluation.speed import weight_bytes
from tests.reference.tiny_llama import tiny_llama

CPU = torch.device("cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_refuses_in_one_line() -> None:
    command = [sys.executable, "-m", "benchmarks.gpu"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "benchmarks.gpu needs a CUDA GPU, and torch finds none here\n"
    assert not done.stdout


def test_contestants_are_compared_with_ours() -> None:
    model = tiny_llama(torch.float32)
    results = compare(model, [Shape(2, 6, 1), Shape(2, 6, 3)], steps=2, bandwidth=1e9)
    assert list(results) == ["batch_1", "batch_3"]
    for batch_size, at in zip((1, 3), results.values(), strict=True):
        assert tuple(at) == CONTESTANTS
        assert at["sinks"]["sinks_over_it"] == 1.0
        # Two layers, keys and values, two heads, eight entries, eight numbers of four bytes.
        assert at["sinks"]["cache_bytes"] == batch_size * 2 * 2 * 2 * 8 * 8 * 4
        assert at["sinks"]["bytes_per_step"] == weight_bytes(model) + at["sinks"]["cache_bytes"]
        assert at["recompute"]["bandwidth_share"] is None
        assert all(figures["steps"] == 2 for figures in at.values())
        assert not any(figures["captured"] for figures in at.values())


def test_the_embedding_is_not_read_but_by_row() -> None:
    model = tiny_llama(torch.float32)
    parameters = sum(p.nbytes for p in model.parameters())
    assert weight_bytes(model) == parameters - 61 * 32 * 4


def test_attention_alone_counts_every_layer() -> None:
    config = LlamaConfig(hidden_size=32, num_hidden_layers=3, num_attention_heads=2)
    figures = attention_alone(config, Shape(1, 7, 2), CPU, bandwidth=1e9)
    assert figures["bytes"] == 3 * 2 * 2 * 2 * 8 * 16 * 2
    assert figures["milliseconds"] > 0
