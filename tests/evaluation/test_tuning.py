from __future__ import annotations

import math

import pytest
import torch

from streamingllm.errors import ConfigError, InputError
from streamingllm.evaluation.sink_metric import sink_rates, sink_scores
from streamingllm.evaluation.tasks.perplexity import TokenizedText
from streamingllm.evaluation.tuning import MARGIN, tune, tuning_caches
from tests.evaluation.tasks.evaluating import byte_lm
from tests.reference.tiny_llama import new_llama, random_ids


def test_sink_scores_are_mean_attention_weights() -> None:
    model = new_llama(num_hidden_layers=1)
    before = model.config._attn_implementation
    ids = random_ids(2, 12)
    found = sink_scores(model, ids, 3)
    assert model.config._attn_implementation == before
    layer = model.model.layers[0]
    x = layer.input_layernorm(model.model.embed_tokens(ids))
    cos, sin = model.model.rotary_emb(x, torch.arange(12)[None])

    def turned(weight: torch.Tensor, heads: int) -> torch.Tensor:
        y = (x @ weight.T).view(2, 12, heads, 8)
        a, b = y.chunk(2, dim=-1)
        return y * cos[:, :, None] + torch.cat([-b, a], dim=-1) * sin[:, :, None]

    q = turned(layer.self_attn.q_proj.weight, 4)
    k = turned(layer.self_attn.k_proj.weight, 2)
    for head in range(4):
        scores = q[:, :, head] @ k[:, :, head // 2].transpose(1, 2) / math.sqrt(8)
        weights = scores.masked_fill(torch.ones(12, 12).triu(1).bool(), -torch.inf).softmax(-1)
        for key in range(3):
            expected = float(weights[:, key + 1 :, key].mean())
            assert float(found[0, head, key]) == pytest.approx(expected, rel=1e-4)


def test_rates_count_heads() -> None:
    scores = torch.tensor([[[0.4, 0.1], [0.2, 0.1]], [[0.31, 0.3], [0.9, 0.5]]])
    assert sink_rates(scores) == [0.75, 0.25]


def test_the_recommendation_has_the_fewest_sinks_that_will_do() -> None:
    lm = byte_lm()
    ids = random_ids(400) + 1
    found = tune(lm, [TokenizedText("noise", ids)], 64, segment_tokens=32)
    labels = [f"{n}+{64 - n}" for n in (0, 1, 2, 4, 8, 16)]
    values = [found.evaluation.estimate(label, "perplexity").value for label in labels]
    best = min(values)
    good = [
        label
        for label in labels
        if found.evaluation.difference(labels[values.index(best)], label, "perplexity").high
        < MARGIN * best
        or values[labels.index(label)] == best
    ]
    assert found.recommended.label == good[0]
    assert len(found.rates) == 8
    report = found.report(0)
    assert report["recommended"]["cache"] == good[0]
    assert [len(row) for row in report["first_token_attention"]] == [4, 4]


def test_all_caches_are_of_one_size() -> None:
    caches = tuning_caches(64, [9, 30, 7, 12])
    assert {cache.config.cache_size for cache in caches} == {64}
    assert caches[-1].config.sink_positions == (0, 1, 2, 3, 7, 9, 12, 30)


def test_what_cannot_be_tuned_is_refused() -> None:
    text = TokenizedText("short", random_ids(50))
    with pytest.raises(InputError, match="text='short' has 50 tokens"):
        tune(byte_lm(), [text], 64)
    with pytest.raises(ConfigError, match="cache_size=20 is out of range"):
        tuning_caches(20, [4, 5, 6, 7])
    with pytest.raises(InputError, match="more than 8 tokens"):
        sink_scores(byte_lm().model, random_ids(1, 8))
