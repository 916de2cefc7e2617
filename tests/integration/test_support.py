"""Models that cannot stream are refused with the reason and what to use instead."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from packaging.version import Version
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedModel

from streamingllm import SinkCache
from streamingllm.errors import UnsupportedModelError
from streamingllm.integration.support import layer_windows
from tests.reference.families import model_of
from tests.reference.family import COMMON, config_of
from tests.reference.tiny_llama import random_ids

NAMES = {"n_embd": 32, "n_layer": 2, "n_head": 4}
SIZES = COMMON | {"num_hidden_layers": 2}
ENCODER_DECODER = {"d_model": 32, "num_heads": 4, "d_kv": 8, "d_ff": 48, "num_layers": 1}
BART = {
    f"{part}_{what}": size
    for part in ("encoder", "decoder")
    for what, size in (("layers", 1), ("attention_heads", 4), ("ffn_dim", 48))
}


def build(model_type: str, fields: dict[str, Any]) -> PreTrainedModel:
    transformers.logging.set_verbosity_error()
    special = {"vocab_size": 61, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    config = config_of(model_type, special | fields)
    auto: Any = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    with torch.random.fork_rng():
        model: PreTrainedModel = auto.from_config(config)
    return model.eval()


@pytest.mark.parametrize(
    ("model_type", "fields", "reason"),
    [
        ("gpt2", NAMES, r"positions are learned \(transformer\.wpe\)"),
        ("opt", SIZES | {"ffn_dim": 48, "word_embed_proj_dim": 64}, "positions are learned"),
        ("t5", ENCODER_DECODER, "encoder-decoder"),
        ("bart", BART | {"d_model": 32}, "encoder-decoder"),
        ("mamba", {"hidden_size": 32, "num_hidden_layers": 2}, "recurrent"),
        ("jamba", SIZES | {"num_experts": 2, "use_mamba_kernels": False}, "recurrent"),
        ("bamba", SIZES | {"mamba_n_heads": 8, "mamba_d_head": 16}, "recurrent"),
        ("openai-gpt", NAMES, "outside transformers' attention interface"),
        ("recurrent_gemma", COMMON, "keeps its recurrent state in itself"),
        ("minimax", SIZES | {"num_local_experts": 2}, "no cache except one of its own class"),
        ("llama4_text", SIZES | {"num_local_experts": 2, "head_dim": 16}, "fixed chunks"),
        ("ctrl", NAMES | {"dff": 48}, "follow no known rotary"),
        ("doge", SIZES, "does more than a mask"),
    ],
)
def test_refused_by_name_with_a_reason_and_a_way_out(
    model_type: str, fields: dict[str, Any], reason: str
) -> None:
    model = build(model_type, fields)
    with pytest.raises(UnsupportedModelError, match=reason) as caught:
        SinkCache(model)
    message = str(caught.value)
    assert message.startswith(f"{model_type} cannot stream: ")
    assert "; use a decoder" in message
    assert "\n" not in message
    decoder = model.get_decoder()
    assert decoder is not None
    assert "forward" not in vars(decoder)


@pytest.mark.parametrize("has_cache", [False, True])
def test_a_model_without_a_language_head_is_refused(has_cache: bool) -> None:
    cache = SinkCache(model_of("llama")) if has_cache else None
    with pytest.raises(UnsupportedModelError, match="predicts next tokens"):
        SinkCache(model_of("llama").model)
    del cache


@pytest.mark.skipif(
    Version(transformers.__version__) < Version("5.23"),
    reason="Moshi did not use the attention interface yet",
)
def test_a_rotary_module_in_every_layer() -> None:
    """Moshi's layers each own one, all alike: none of them may be missed."""
    fields = {"hidden_size": 64, "ffn_dim": 48, "num_hidden_layers": 2, "head_dim": 16}
    model, ids = build("moshi", fields | {"num_attention_heads": 4}).double(), random_ids(1, 20)
    with torch.no_grad(), SinkCache(model, 4, 16) as cache:
        logits = [model(chunk, past_key_values=cache).logits for chunk in ids.split(6, dim=1)]
        dense = model(ids).logits
    torch.testing.assert_close(torch.cat(logits, dim=1), dense, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "windows"),
    [
        ("llama", (None, None, None)),
        ("mistral-9", (9, 9, 9)),
        ("mixtral", (None, None, None)),
        ("qwen2", (None, None, None)),
        ("qwen2-moe", (None, None, None)),
        ("gemma2-6", (6, None, 6)),
        ("gpt-oss", (6, None, 6)),
        ("bloom", (None, None, None)),
    ],
)
def test_what_each_layer_sees_by_itself(name: str, windows: tuple[int | None, ...]) -> None:
    assert layer_windows(model_of(name)) == windows
