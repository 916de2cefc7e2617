"""A small model made from a configuration gives the same facts as the model itself."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedConfig

from streamingllm.config import StreamConfig
from streamingllm.evaluation.inspection import _of_the_whole, inspect_model
from streamingllm.models import miniature
from streamingllm.models.miniature import make_miniature
from tests.reference.families import FAMILIES, model_of

CONFIG = StreamConfig(4, 12)
# The size of their heads follows from the width, or a norm is as wide as all heads.
NOT_NARROW = ("gptj", "gpt-neox", "stablelm", "olmoe", "falcon", "bloom", "mpt")


@pytest.fixture(autouse=True)
def small_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes below those of the tests' models, which are small as well."""
    for name, size in (("_WIDTH", 16), ("_FEED_FORWARD", 8), ("_VOCABULARY", 16)):
        monkeypatch.setattr(miniature, name, size)


@pytest.mark.parametrize("all_layers", [False, True])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_has_the_same_facts(name: str, all_layers: bool) -> None:
    whole = model_of(name, torch.float32)
    small = make_miniature(whole.config, torch.float32, all_layers=all_layers)
    facts = inspect_model(small.model, CONFIG)
    assert _of_the_whole(facts, small) == inspect_model(whole, CONFIG)
    width = small.model.config.get_text_config().hidden_size
    assert (width == 16) == (not name.startswith(NOT_NARROW))
    num_layers = whole.config.num_hidden_layers
    assert small.layers_each in (1.0, num_layers / 2)
    assert not all_layers or small.layers_each == 1.0


def wide_llama(**fields: int) -> PreTrainedConfig:
    return LlamaConfig(
        hidden_size=4096,
        intermediate_size=14_336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        vocab_size=128_256,
        pad_token_id=128_000,
        **fields,
    )


def test_a_large_model_becomes_small() -> None:
    config = wide_llama()
    before = config.to_dict()
    small = make_miniature(config, torch.bfloat16)
    assert config.to_dict() == before
    assert small.num_parameters == 8_030_261_248  # of Llama 3 8B
    assert small.model.num_parameters() < 2_000_000
    assert small.model.dtype is torch.bfloat16
    assert small.layers_each == 16
    assert not small.model.training


def test_random_numbers_of_the_caller_stay() -> None:
    state = torch.random.get_rng_state()
    make_miniature(wide_llama(), torch.float32)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_layers_that_differ_all_stay() -> None:
    config = FAMILIES["gemma3"]
    whole = model_of(config.name, torch.float32)
    small = make_miniature(whole.config, torch.float32)
    assert small.layers_each == 1


def test_a_model_that_cannot_be_narrowed_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(miniature, "_same_attention", lambda whole, small: False)
    whole = model_of("llama", torch.float32)
    small = make_miniature(whole.config, torch.float32, all_layers=True)
    assert small.model.num_parameters() == whole.num_parameters() == small.num_parameters


def test_another_size_of_heads_is_noticed() -> None:
    with torch.device("meta"):
        whole = AutoModelForCausalLM.from_config(wide_llama())
        other = AutoModelForCausalLM.from_config(wide_llama(head_dim=64))
        same = AutoModelForCausalLM.from_config(wide_llama(head_dim=128))
    assert not miniature._same_attention(whole, other)
    assert miniature._same_attention(whole, same)


def test_facts_of_one_kind_of_layers_are_multiplied() -> None:
    small = make_miniature(wide_llama(), torch.float32)
    facts = inspect_model(small.model, CONFIG)
    whole = _of_the_whole(facts, small)
    assert [count for _, count in facts.layers] == [2]
    assert [count for _, count in whole.layers] == [32]
    assert whole.bytes_per_cached_token == 32 * 8 * 128 * 2 * 4
    assert whole.cache_bytes == 16 * whole.bytes_per_cached_token
    refused = _of_the_whole(replace(facts, layers=(), cache_bytes=None), small)
    assert refused.cache_bytes is None
