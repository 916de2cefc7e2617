"""Trained checkpoints stream through the product as their plain decoders do."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.pretraining.decoder import SINKS, Arm, Decoder
from benchmarks.pretraining.export import save_checkpoint
from benchmarks.pretraining.streaming import cache_distances
from benchmarks.pretraining.training import held_out_ids, train
from benchmarks.pretraining.training import with_sink_token as after_sink_token
from streamingllm import Engine, SamplingParams, Stream, StreamConfig, load_model
from streamingllm.errors import InputError, RewindError, StreamingLLMError, UnsupportedFeatureError
from streamingllm.evaluation.sink_metric import sink_scores
from streamingllm.inputs import with_sink_token
from streamingllm.integration.trained_sinks import PLAIN
from streamingllm.models import LanguageModel

ARMS = [*(("rope", sink) for sink in SINKS), ("nope", "none")]
SMALL = {"width": 32, "num_layers": 2, "num_heads": 2, "trained_length": 16}
TINY_LLAMA = {
    "vocab_size": 8, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
    "num_attention_heads": 1, "num_key_value_heads": 1,
}  # fmt: skip
NUM_SINKS, WINDOW = 2, 6


@dataclass(frozen=True)
class Trained:
    """A plain decoder, and what was loaded from its checkpoint."""

    decoder: Decoder
    folder: Path
    lm: LanguageModel


def make(encoding: str, sink: str, folder: Path) -> Trained:
    """Train a few steps, after which sinks are not what they began with; save and load."""
    decoder = train(Arm(encoding, sink, **SMALL), steps=6, batch_size=4, learning_rate=0.03)
    save_checkpoint(decoder, folder)
    return Trained(decoder, folder, load_model(folder, quantize="none"))


@pytest.fixture(scope="module", params=ARMS, ids="-".join)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    encoding, sink = request.param
    return make(encoding, sink, tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def with_token(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return make("rope", "token", tmp_path_factory.mktemp("checkpoint"))


def plain_logits(decoder: Decoder, ids: Tensor, num_sinks: int, window: int) -> Tensor:
    """Return the logits after each token under cache distances, a sink token in addition."""
    has_token = decoder.arm.sink == "token"
    read = after_sink_token(ids) if has_token else ids
    distances = cache_distances(len(read), num_sinks + has_token, window)
    with torch.inference_mode():
        return decoder(read[None], distances)[0, int(has_token) :]


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_streamed_logits_equal_the_plain_decoder(trained: Trained) -> None:
    ids, config = held_out_ids(36), StreamConfig(NUM_SINKS, WINDOW)
    expected = plain_logits(trained.decoder, ids, NUM_SINKS, WINDOW)
    for passes in ([36], [7, *[1] * 12, 17]):
        stream = Stream(trained.lm, config)
        close(torch.cat([stream.feed(part) for part in ids.split(passes)]), expected)
        assert stream.num_seen_tokens == 36
        assert stream.num_cached_tokens == NUM_SINKS + WINDOW == stream.cache_size


def test_a_model_by_itself_computes_its_sinks_too(trained: Trained) -> None:
    ids = held_out_ids(14)
    read = after_sink_token(ids) if trained.decoder.arm.sink == "token" else ids
    with torch.inference_mode():
        close(trained.lm.model(read[None]).logits, trained.decoder(read[None]))
    dense = Stream(trained.lm, StreamConfig(strategy="dense")).feed(ids)
    close(dense, plain_logits(trained.decoder, ids, 0, 14))


def test_attention_without_sinks_is_refused(trained: Trained) -> None:
    model = trained.lm.model
    if getattr(model.config, "attention_sink", None) is None:
        return
    try:
        model.set_attn_implementation("sdpa")
        with pytest.raises(UnsupportedFeatureError, match="would leave out attention_sink"):
            model(held_out_ids(4)[None])
    finally:
        model.set_attn_implementation(PLAIN)


def test_the_sink_metric_sees_the_weights_of_the_decoder(trained: Trained) -> None:
    ids = held_out_ids(14)[None]
    read = after_sink_token(ids) if trained.decoder.arm.sink == "token" else ids
    with torch.inference_mode():
        shown = trained.decoder.attention_weights(read)
    first = torch.stack([weights[0, :, 1:, 0].double().mean(-1) for weights in shown])
    torch.testing.assert_close(sink_scores(trained.lm.model, ids)[..., 0], first, rtol=0, atol=1e-6)


def test_a_sink_token_stays_without_other_sinks(with_token: Trained) -> None:
    ids = held_out_ids(30)
    expected = plain_logits(with_token.decoder, ids, 0, WINDOW)
    for strategy in ("sinks", "window"):
        stream = Stream(with_token.lm, StreamConfig(0, WINDOW, strategy=strategy))
        close(stream.feed(ids), expected)
        assert (stream.num_seen_tokens, stream.num_cached_tokens) == (30, WINDOW)
        assert stream.first_visible_position == 30 - WINDOW


def test_positions_of_other_sinks_move_by_the_sink_token(with_token: Trained) -> None:
    config = StreamConfig(2, WINDOW, sink_positions=(1, 4))
    moved = with_sink_token(config, with_token.lm.model)
    assert (moved.sink_positions, moved.window_size) == ((0, 2, 5), WINDOW)
    other = LlamaForCausalLM(LlamaConfig(**TINY_LLAMA))
    assert with_sink_token(config, other) == config
    other.config.sink_token_id = 8
    with pytest.raises(InputError, match="sink_token_id=8 is no token of llama; choose one of 0"):
        Stream(other, config)


def test_recomputation_begins_with_the_sink_token(with_token: Trained) -> None:
    ids = held_out_ids(12)
    found = Stream(with_token.lm, StreamConfig(0, 5, strategy="recompute")).feed(ids)
    for end in (3, 12):
        read = after_sink_token(ids[max(0, end - 5) : end])
        with torch.inference_mode():
            close(found[end - 1], with_token.decoder(read[None])[0, -1])


def test_streams_with_a_sink_token_rewind_fork_and_restore(
    with_token: Trained, tmp_path: Path
) -> None:
    ids, config = held_out_ids(30), StreamConfig(NUM_SINKS, WINDOW)
    expected = plain_logits(with_token.decoder, ids, NUM_SINKS, WINDOW)
    stream = Stream(with_token.lm, config)
    stream.feed(ids[:5])
    with pytest.raises(RewindError, match="only 5"):
        stream.rewind(6)
    stream.rewind(5)
    assert stream.num_seen_tokens == 0
    close(stream.feed(ids[:20]), expected[:20])
    stream.rewind(4)
    close(stream.next_logits, expected[15])
    stream.snapshot(tmp_path / "stream")
    for other in (stream.fork(), Stream.restore(with_token.lm, tmp_path / "stream")):
        assert other.num_seen_tokens == 16
        close(other.feed(ids[16:]), expected[16:])


def test_an_engine_puts_the_sink_token_first(with_token: Trained) -> None:
    ids, config = held_out_ids(20).tolist(), StreamConfig(0, WINDOW)
    alone = Stream(with_token.lm, config)
    alone.feed(torch.tensor(ids))
    expected = list(alone.generate(6))
    params = SamplingParams(max_new_tokens=6, ignore_eos=True)
    with Engine(with_token.lm, config, max_streams=2) as engine:
        completions = engine.generate([ids, ids[:9]], params)
        assert list(completions[0].token_ids) == expected
        name = engine.open_stream()
        engine.submit(name, ids, SamplingParams(max_new_tokens=1, ignore_eos=True))
        while engine.state(name) != "idle":
            engine.step()
        assert engine.usage(name).num_prompt_tokens == 20
        assert engine.usage(name).num_cached_tokens == WINDOW
        copy = engine.open_stream(state=engine.export_state(name))
        engine.submit(copy, [], SamplingParams(max_new_tokens=5, ignore_eos=True))
        outputs = []
        while engine.state(copy) != "idle":
            outputs += [t for o in engine.step() if o.stream_id == copy for t in o.token_ids]
        assert outputs == expected[1:]


def test_sinks_that_the_configuration_does_not_explain_are_refused(tmp_path: Path) -> None:
    decoder = Decoder(Arm("rope", "logit", **SMALL))
    save_checkpoint(decoder, tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    for value, message in ((None, "names no attention_sink"), ("sofmax1", "'sofmax1' is unknown")):
        path.write_text(json.dumps(config | {"attention_sink": value}))
        with pytest.raises(StreamingLLMError, match=message):
            load_model(tmp_path, quantize="none")
