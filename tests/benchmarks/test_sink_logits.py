"""Forms of the sinks' logits, on a small model."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.sink_logit_forms import Calibrator, Form, Plain, attending
from streamingllm import Stream, StreamConfig
from tests.reference.families import FAMILIES, model_of
from tests.reference.family import VOCAB_SIZE
from tests.reference.oracles import banded_logits

N, M = 3, 9
IDS = torch.randint(3, VOCAB_SIZE, (1, 40), generator=torch.Generator().manual_seed(0))


def logits_of(form: Form, n: int = N) -> Tensor:
    model = model_of("llama", torch.float64)
    stream = Stream(model, StreamConfig(n, M, chunk_size=8))
    with attending(Plain(model.config.num_hidden_layers, form)):
        return torch.cat([stream.feed(ids) for ids in IDS.split(8, dim=1)], dim=1)


def per_head(value: float) -> Tensor:
    config = model_of("llama", torch.float64).config
    size = (config.num_hidden_layers, config.num_attention_heads)
    return torch.full(size, value, dtype=torch.float64)


def test_no_form_changes_nothing() -> None:
    facts = FAMILIES["llama"].facts(N + M)
    expected = banded_logits(model_of("llama", torch.float64), facts, IDS, N, M)
    for form in (Form(), Form(bias=per_head(0.0)), Form(most=per_head(50.0))):
        torch.testing.assert_close(logits_of(form), expected, rtol=0, atol=1e-4)


def test_without_weight_the_sinks_are_gone() -> None:
    expected = logits_of(Form(), n=0)
    for form in (Form(bias=per_head(-1e4)), Form(most=per_head(-1e4))):
        torch.testing.assert_close(logits_of(form), expected, rtol=0, atol=1e-4)
    assert float((logits_of(Form()) - expected).abs().max()) > 1e-3


def test_a_key_for_evicted_tokens_weighs_what_it_is_given() -> None:
    torch.testing.assert_close(
        logits_of(Form(evicted=per_head(-1e4))), logits_of(Form()), rtol=0, atol=1e-4
    )
    assert float((logits_of(Form(evicted=per_head(0.0))) - logits_of(Form())).abs().max()) > 1e-3


def test_weights_are_calibrated_where_nothing_is_evicted() -> None:
    model, skip = model_of("llama", torch.float64), 16
    stream = Stream(model, StreamConfig(N, 60, chunk_size=8))
    calibrator = Calibrator(model.config.num_hidden_layers, N, M, skip)
    with attending(calibrator):
        for ids in IDS.split(8, dim=1):
            stream.feed(ids)
    found = calibrator.result()
    eager = model_of.__wrapped__("llama", torch.float64)
    eager.load_state_dict(model.state_dict())
    eager.set_attn_implementation("eager")
    with torch.no_grad():
        layers = eager(IDS, output_attentions=True).attentions
    for layer, weights in enumerate(layers):
        queries = torch.arange(skip, IDS.shape[1])
        sinks = weights[0, :, skip:, :N].sum(dim=-1)
        recent = torch.stack(
            [weights[0, :, t, t - M + 1 : t + 1].sum(dim=-1) for t in queries.tolist()], dim=-1
        )
        sink_logit, missing = (sinks / (1 - sinks)).log(), ((1 - sinks) / recent).log()
        torch.testing.assert_close(found.sink_logit[layer], sink_logit.mean(-1), rtol=0, atol=1e-6)
        torch.testing.assert_close(found.missing[layer], missing.mean(-1), rtol=0, atol=1e-6)
