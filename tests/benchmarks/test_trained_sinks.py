"""Trained checkpoints stream through the product as their plain decoders do."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks.pretraining.decoder import SINKS, Arm, Decoder
from benchmarks.pretraining.export import save_checkpoint
from benchmarks.pretraining.streaming import cache_distances
from benchmarks.pretraining.training import held_out_ids, train, with_sink_token
from streamingllm import Stream, StreamConfig, load_model
from streamingllm.models import LanguageModel

ARMS = [*(("rope", sink) for sink in SINKS), ("nope", "none")]
SMALL = {"width": 32, "num_layers": 2, "num_heads": 2, "trained_length": 16}
NUM_SINKS, WINDOW = 2, 6


@pytest.fixture(scope="module", params=ARMS, ids="-".join)
def trained(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Decoder, Path]:
    """A decoder after a few steps, whose sinks are not what they began with; its checkpoint."""
    encoding, sink = request.param
    decoder = train(Arm(encoding, sink, **SMALL), steps=10, batch_size=4, learning_rate=0.03)
    folder = tmp_path_factory.mktemp("checkpoint")
    save_checkpoint(decoder, folder)
    return decoder, folder


def plain_logits(decoder: Decoder, ids: Tensor, num_sinks: int, window: int) -> Tensor:
    """Return the logits after each token under cache distances, a sink token in addition."""
    has_token = decoder.arm.sink == "token"
    read = with_sink_token(ids) if has_token else ids
    distances = cache_distances(len(read), num_sinks + has_token, window)
    with torch.inference_mode():
        return decoder(read[None], distances)[0, int(has_token) :]


@pytest.mark.parametrize("passes", [[40], [1] * 40, [7, 1, 1, 20, 11]], ids=["one", "steps", "mix"])
def test_streamed_logits_equal_the_plain_decoder(
    trained: tuple[Decoder, Path], passes: list[int]
) -> None:
    decoder, folder = trained
    ids = held_out_ids(40)
    stream = Stream(load_model(folder, quantize="none"), StreamConfig(NUM_SINKS, WINDOW))
    found = torch.cat([stream.feed(part) for part in ids.split(passes)])
    expected = plain_logits(decoder, ids, NUM_SINKS, WINDOW)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert stream.num_seen_tokens == 40
    assert stream.num_cached_tokens == NUM_SINKS + WINDOW == stream.cache_size


def loaded(folder: Path) -> LanguageModel:
    """Return the model of a checkpoint in float32."""
    return load_model(folder, quantize="none")
