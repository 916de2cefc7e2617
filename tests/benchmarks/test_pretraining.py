from __future__ import annotations

import pytest
import torch

from benchmarks.pretraining.decoder import ENCODINGS, HIDDEN, SINKS, Arm, Decoder
from benchmarks.pretraining.streaming import (
    cache_distances,
    nll_of,
    recomputed_nll,
    text_distances,
)
from benchmarks.pretraining.training import held_out_ids, sample_loss, train

SMALL = {"width": 32, "num_layers": 2, "num_heads": 2, "trained_length": 16}


def decoder_of(encoding: str = "rope", sink: str = "none") -> Decoder:
    """A random decoder whose sink logits are not 0."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        decoder = Decoder(Arm(encoding, sink, **SMALL))
        for name, parameter in decoder.named_parameters():
            if "sink_logits" in name:
                parameter.data.normal_()
            elif parameter.ndim == 2:
                parameter.data.normal_(std=0.3)
    return decoder.double().eval()


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("sink", SINKS)
def test_both_ways_to_score_agree(encoding: str, sink: str) -> None:
    decoder, ids = decoder_of(encoding, sink), held_out_ids(12)[None]
    distances = cache_distances(12, 0, 12)
    with torch.inference_mode():
        torch.testing.assert_close(decoder(ids, distances), decoder(ids), rtol=1e-9, atol=1e-9)


def test_distances_are_those_of_a_loop() -> None:
    n, m, size = 2, 3, 9
    found = cache_distances(size, n, m)
    for t in range(size):
        kept = [j for j in range(t + 1) if j < n or j > t - m]
        for j in range(size):
            if j not in kept:
                assert found[t, j] == HIDDEN
            else:  # places are counted among what is kept
                assert found[t, j] == kept.index(t) - kept.index(j), (t, j)
                assert text_distances(size, n, m)[t, j] == t - j


def test_text_positions_change_nothing_without_an_encoding() -> None:
    decoder, ids = decoder_of("nope"), held_out_ids(40)
    a, b = (nll_of(decoder, ids, d(40, 2, 6)) for d in (cache_distances, text_distances))
    torch.testing.assert_close(a, b)
    moved = decoder_of("rope")
    a, b = (nll_of(moved, ids, d(40, 2, 6)) for d in (cache_distances, text_distances))
    assert (a[20:] - b[20:]).abs().max() > 1e-3


@pytest.mark.parametrize("sink", ["none", "token"])
def test_recomputation_is_a_pass_of_its_own_for_each_token(sink: str) -> None:
    decoder, ids = decoder_of("rope", sink), held_out_ids(20)
    found = recomputed_nll(decoder, ids, 5)
    text = ids if sink == "none" else torch.cat((torch.tensor([256]), ids))
    for number, target in enumerate(ids[1:]):
        end = number + 1 + len(text) - len(ids)
        with torch.inference_mode():
            logits = decoder(text[None, max(0, end - 5) : end])[0, -1]
        assert found[number] == pytest.approx(-float(logits.log_softmax(-1)[target]))


@pytest.mark.parametrize("sink", SINKS)
def test_training_lowers_the_loss(sink: str) -> None:
    arm, ids = Arm("rope", sink, **SMALL), held_out_ids(17)[None]
    before = sample_loss(train(arm, steps=1, batch_size=2), ids)
    after = sample_loss(train(arm, steps=40, batch_size=8), ids)
    assert after < before - 0.5
