"""Families with attention of their own: the same biases, switches and table as the model's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.models.falcon.modeling_falcon import build_alibi_tensor

from streamingllm import SinkCache
from streamingllm.errors import UnsupportedModelError
from streamingllm.integration.adapters import ADAPTERS
from streamingllm.positions.alibi import AlibiEncoding
from streamingllm.positions.rope import RopeEncoding
from tests.reference.family import VOCAB_SIZE, config_of, with_random_weights
from tests.reference.tiny_llama import random_ids


def model_of(model_type: str, num_heads: int, **fields: Any) -> PreTrainedModel:
    sizes = {
        "bloom": {"hidden_size": 8 * num_heads, "n_layer": 2, "n_head": num_heads},
        "mpt": {"d_model": 8 * num_heads, "n_layers": 2, "n_heads": num_heads},
        "gptj": {"n_embd": 8 * num_heads, "n_layer": 2, "n_head": num_heads, "rotary_dim": 4},
        "falcon": {
            "hidden_size": 8 * num_heads,
            "num_hidden_layers": 2,
            "num_attention_heads": num_heads,
        },
    }
    special = {"bos_token_id": 1, "eos_token_id": 2}
    fields = {"vocab_size": VOCAB_SIZE} | special | sizes[model_type] | fields
    config = config_of(model_type, fields)
    with torch.random.fork_rng():
        model = AutoModelForCausalLM.from_config(config)
    return with_random_weights(model).double()


@pytest.mark.parametrize("num_heads", [1, 2, 6, 8, 12, 71])
def test_slopes_are_those_of_the_model(num_heads: int) -> None:
    """At any number of heads, by the model's own biases of a text of 100 tokens."""
    ones = torch.ones(1, 100, dtype=torch.int64)
    bloom, mpt = model_of("bloom", num_heads), model_of("mpt", num_heads)
    falcon = model_of("falcon", num_heads, alibi=True, multi_query=False)
    inside: Any = bloom.get_decoder()
    also_inside: Any = mpt.get_decoder()
    biases = {
        "bloom": inside.build_alibi_tensor(ones, num_heads, torch.float32)[:, 0],
        "mpt": also_inside.build_mpt_alibi_tensor(num_heads, 100)[:, 0],
        "falcon": build_alibi_tensor(ones, num_heads, torch.float32)[:, 0] * 8**-0.5,
    }
    # Falcon's are rounded to bfloat16, by 1 / 256 of themselves, at both ends of a distance.
    roundings = {"bloom": 1e-6, "mpt": 1e-6, "falcon": 2 / 256}
    for model in (bloom, mpt, falcon):
        name = model.config.model_type
        (encoding, *_) = ADAPTERS[name].encodings(model, cache_size=16)
        assert isinstance(encoding, AlibiEncoding)
        distance = torch.arange(99, -1, -1)[None, None]
        ours = encoding.bias(distance, torch.float32)[0, :, 0]
        theirs = biases[name] - biases[name][:, -1:]
        atol = roundings[name] * float(biases[name].abs().max())
        torch.testing.assert_close(ours, theirs, rtol=0, atol=atol)


@pytest.mark.parametrize(
    ("model_type", "fields"),
    [
        ("bloom", {"apply_residual_connection_post_layernorm": True}),
        ("mpt", {"attn_config": {"clip_qkv": 0.5, "softmax_scale": 0.7, "alibi_bias_max": 4}}),
        ("falcon", {"multi_query": False}),
        ("falcon", {"multi_query": False, "parallel_attn": False, "bias": True}),
        ("falcon", {"new_decoder_architecture": True, "num_kv_heads": 3}),
        ("falcon", {"new_decoder_architecture": True, "num_ln_in_parallel_attn": 1}),
        ("gptj", {"rotary_dim": 8}),
    ],
)
@pytest.mark.parametrize("num_heads", [6])
def test_every_switch_of_the_family(
    model_type: str, fields: dict[str, Any], num_heads: int
) -> None:
    model, ids = model_of(model_type, num_heads, **fields), random_ids(2, 40)
    with torch.no_grad():
        dense = model(ids).logits
        with SinkCache(model, 4, 36) as cache:
            logits = [model(chunk, past_key_values=cache).logits for chunk in ids.split(13, dim=1)]
        assert torch.equal(model(ids).logits, dense)
    torch.testing.assert_close(torch.cat(logits, dim=1), dense, rtol=0, atol=2e-5)


def test_falcon_scales_its_rotary_frequencies() -> None:
    rule = {"rope_type": "linear", "factor": 4.0, "rope_theta": 10_000.0}
    plain, scaled = model_of("falcon", 4), model_of("falcon", 4, rope_parameters=rule)
    (one, *_), (other, *_) = (ADAPTERS["falcon"].encodings(m, 16) for m in (plain, scaled))
    assert isinstance(one, RopeEncoding)
    assert isinstance(other, RopeEncoding)
    torch.testing.assert_close(one.inv_freq, other.inv_freq * 4)


def test_gptj_goes_past_its_table() -> None:
    """Its table ends at n_positions, a stream does not."""
    model, ids = model_of("gptj", 4, n_positions=16), random_ids(1, 60)
    with torch.no_grad(), SinkCache(model, 2, 8) as at_once, SinkCache(model, 2, 8) as by_one:
        expected = model(ids, past_key_values=at_once).logits
        logits = [model(token, past_key_values=by_one).logits for token in ids.split(1, dim=1)]
    torch.testing.assert_close(torch.cat(logits, dim=1), expected, rtol=0, atol=1e-10)


def test_mpt_without_alibi_is_refused() -> None:
    model = model_of("mpt", 4, attn_config={"alibi": False})
    with pytest.raises(UnsupportedModelError, match=r"attn_config\.alibi=False"):
        SinkCache(model)
    assert "forward" not in vars(model.get_decoder())
