from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
)

from streamingllm.config import StreamConfig
from streamingllm.evaluation import inspect_model
from streamingllm.integration.sink_cache import SinkCache
from streamingllm.models.miniature import make_miniature
from tests.reference.hybrids import hybrid_model
from tests.reference.tiny_llama import new_llama, random_ids, tiny_llama

CONFIG = StreamConfig(num_sink_tokens=4, window_size=12)


def gemma3() -> Gemma3ForCausalLM:
    """Three local layers with a window of 8, then a global one."""
    config = Gemma3TextConfig(
        vocab_size=61,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=8,
        sliding_window=8,
        max_position_embeddings=64,
        layer_types=["sliding_attention"] * 3 + ["full_attention"],
    )
    return Gemma3ForCausalLM(config).eval()


def test_a_plain_decoder() -> None:
    facts = inspect_model(tiny_llama(), CONFIG)
    assert (facts.family, facts.dtype, facts.trained_length) == ("llama", "float64", 64)
    assert facts.parameters == sum(p.numel() for p in tiny_llama().parameters())
    assert facts.refusal is None
    ((group, count),) = facts.layers
    assert count == 2
    assert (group.attention, group.own_window, group.position_encoding) == ("global", None, "rope")
    assert (group.num_kv_heads, group.key_size, group.value_size) == (2, 8, 8)
    assert (group.num_sink_tokens, group.window_size) == (4, 12)
    assert facts.bytes_per_cached_token == 2 * 2 * 2 * 8 * 8


def test_global_and_local_layers_are_told_apart() -> None:
    facts = inspect_model(gemma3(), CONFIG)
    (local, num_local), (global_, num_global) = facts.layers
    assert (num_local, num_global) == (3, 1)
    assert (local.attention, local.own_window) == ("local", 8)
    assert (local.num_sink_tokens, local.window_size) == (0, 8)
    assert (global_.attention, global_.own_window) == ("global", None)
    assert (global_.num_sink_tokens, global_.window_size) == (4, 12)


def lfm2() -> PreTrainedModel:
    return hybrid_model("lfm2")


def falcon_h1() -> PreTrainedModel:
    return hybrid_model("falcon_h1")


@pytest.mark.parametrize("make", [tiny_llama, gemma3, lfm2, falcon_h1])
def test_cache_bytes_are_what_a_cache_takes(make: Callable[[], PreTrainedModel]) -> None:
    model = make()
    with SinkCache(model, CONFIG.num_sink_tokens, CONFIG.window_size) as cache, torch.no_grad():
        model(input_ids=random_ids(1, 40), past_key_values=cache)
    assert inspect_model(model, CONFIG).cache_bytes == cache.nbytes


@pytest.mark.parametrize("name", ["lfm2", "falcon_h1", "qwen3_5_text"])
def test_a_miniature_of_a_hybrid_has_states_of_the_same_size(name: str) -> None:
    model = hybrid_model(name)
    facts = inspect_model(model, CONFIG)
    small = make_miniature(model.config, torch.float64, all_layers=True)
    assert inspect_model(small.model, CONFIG).state_bytes == facts.state_bytes > 0


def test_the_rule_that_scales_frequencies_is_named() -> None:
    rope = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
    model = new_llama(num_hidden_layers=1, rope_parameters={"rope_theta": 10000.0, **rope})
    facts = inspect_model(model, CONFIG)
    assert facts.layers[0][0].position_encoding == "rope (yarn)"


def test_a_model_that_cannot_stream_is_described_all_the_same() -> None:
    config = GPT2Config(vocab_size=61, n_positions=32, n_embd=32, n_layer=2, n_head=4)
    facts = inspect_model(GPT2LMHeadModel(config).eval(), CONFIG)
    assert (facts.family, facts.trained_length) == ("gpt2", 32)
    assert facts.refusal is not None
    assert "positions are learned" in facts.refusal
    assert facts.layers == ()
    assert facts.cache_bytes is None


def test_nothing_stays_in_the_model() -> None:
    model = tiny_llama()
    before = vars(model.get_decoder()).keys()
    inspect_model(model, CONFIG)
    assert vars(model.get_decoder()).keys() == before
    assert "forward" not in before
