"""The script that trains decoders with and without sinks, on decoders that were not trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks.pretraining import __main__ as script
from benchmarks.pretraining import page
from benchmarks.pretraining.decoder import SINK_TOKEN, Arm, Decoder
from benchmarks.pretraining.measures import attention_to_first, losses_by_column
from benchmarks.pretraining.streaming import cache_distances
from benchmarks.pretraining.training import held_out_texts
from streamingllm import load_model

SMALL = {"width": 32, "num_layers": 2, "num_heads": 2, "trained_length": 16}


def decoder_of(sink: str) -> Decoder:
    """A random decoder whose scores are not all alike."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        decoder = Decoder(Arm("rope", sink, **SMALL))
        for parameter in decoder.parameters():
            if parameter.ndim == 2:
                parameter.data.normal_(std=0.3)
    return decoder.eval()


@pytest.mark.parametrize("sink", ["none", "token"])
def test_columns_are_losses_past_twice_the_trained_length(sink: str) -> None:
    decoder, texts = decoder_of(sink), held_out_texts(2, 60)
    found = losses_by_column(decoder, texts, 12, (0, 1), 0)
    first = [SINK_TOKEN] if sink == "token" else []  # counts as the first sink
    for sinks, label in ((0, "0+12"), (1, "1+11")):
        losses = []
        for text in texts:
            read = torch.tensor([*first, *text.tolist()])
            distances = cache_distances(len(read), sinks, 12 - sinks)
            with torch.inference_mode():
                logits = decoder(read[None], distances)[0, len(first) : -1]
            nll = -logits.log_softmax(-1).gather(-1, text[1:, None])[:, 0]
            losses.append(nll[2 * SMALL["trained_length"] :])
        assert found["nll"][label]["value"] == pytest.approx(float(torch.cat(losses).mean()))
    apart = found["nll"]["0+12"]["value"] - found["nll"]["1+11"]["value"]
    assert found["above_last"]["0+12"]["value"] == pytest.approx(apart, abs=1e-9)
    assert found["above_last"]["1+11"]["value"] == 0


def test_attention_to_the_first_token_counts_heads() -> None:
    decoder, texts = decoder_of("none"), held_out_texts(2, 40)
    found = attention_to_first(decoder, texts)
    ids = texts[:, : SMALL["trained_length"]]
    with torch.inference_mode():
        weights = decoder.attention_weights(ids)
    to_first = torch.stack([layer[:, :, 1:, 0].double().mean((0, 2)) for layer in weights])
    assert found["sink_rates"][0] == float((to_first > found["threshold"]).double().mean())
    assert found["highest_attention"][0] == pytest.approx(float(to_first.max()))


def test_a_run_that_was_stopped_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = []

    def initial(arm: Arm, *, seed: int, **options: object) -> Decoder:
        """Leave training out, which has a test of its own."""
        trained.append((arm.encoding, arm.sink, seed))
        return Decoder(arm).eval()

    monkeypatch.setattr(script, "train", initial)
    path, sizes = tmp_path / "rows.json", {"num_texts": 1, "num_tokens": 96, "cache_size": 12}
    script.main(path, seeds=1, steps=1, **SMALL, **sizes)
    assert trained == [(*arm, 0) for arm in script.ARMS]
    script.main(path, seeds=2, steps=1, **SMALL, **sizes, save=tmp_path / "models")
    assert trained[len(script.ARMS) :] == [(*arm, 1) for arm in script.ARMS]
    found = json.loads(path.read_text())
    assert len(found["rows"]) == 2 * len(script.ARMS)
    values = [row["nll"]["0+12"]["value"] for n, row in found["rows"].items() if "gate" in n]
    assert found["summary"]["rope, gate"]["nll"]["0+12"]["mean"] == pytest.approx(sum(values) / 2)
    config = load_model(tmp_path / "models" / "rope-gate-seed-1").model.config
    assert config.attention_sink == "gate"
    assert len([*page.arm_rows(found)]) == len([*page.sink_rows(found)]) == 2 + len(script.ARMS)
    assert all(row.endswith("of 2 |") for row in [*page.claim_rows(found)][2:])
    script.main(path, seeds=1, steps=2, **SMALL, **sizes)  # of another config: all anew
    assert len(json.loads(path.read_text())["rows"]) == len(script.ARMS)
