"""Checkpoint of a trained decoder in the layout of transformers, which `load_model` reads.

RoPE is Llama's and no encoding is SmolLM3's without rotary layers. No family of transformers has
this decoder with ALiBi, xPos or learned positions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import LlamaConfig, PreTrainedConfig, PreTrainedTokenizerFast, SmolLM3Config
from transformers.convert_slow_tokenizer import bytes_to_unicode

from benchmarks.pretraining.decoder import ROPE_THETA, SINK_TOKEN, VOCAB_SIZE, Arm, Decoder
from streamingllm.models.decoder_class import build_decoder

EXPORTED_ENCODINGS = ("rope", "nope")
_CONFIG_KEYS: dict[str, dict[str, Any]] = {
    "none": {},
    "token": {"sink_token_id": SINK_TOKEN},
    "softmax1": {"attention_sink": "softmax1"},
    "logit": {"attention_sink": "logit"},
    "gate": {"attention_sink": "gate"},
}


def save_checkpoint(decoder: Decoder, folder: Path) -> None:
    """Write configuration, weights and a tokenizer of bytes.

    Args:
        decoder: whose encoding is one of `EXPORTED_ENCODINGS`.
        folder: made if it is not there.
    """
    model = build_decoder(_config(decoder.arm), torch.float32)
    model.load_state_dict(_weights(decoder))
    model.save_pretrained(folder)
    _tokenizer().save_pretrained(folder)


def _config(arm: Arm) -> PreTrainedConfig:
    shape = {
        "vocab_size": VOCAB_SIZE,
        "hidden_size": arm.width,
        "intermediate_size": 2 * arm.width,
        "num_hidden_layers": arm.num_layers,
        "num_attention_heads": arm.num_heads,
        "num_key_value_heads": arm.num_heads,
        "max_position_embeddings": arm.trained_length,
        "rms_norm_eps": torch.finfo(torch.float32).eps,
        "rope_parameters": {"rope_type": "default", "rope_theta": ROPE_THETA},
        "tie_word_embeddings": False,
        **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id")),
        **_CONFIG_KEYS[arm.sink],
    }
    if arm.encoding == "nope":
        return SmolLM3Config(**shape, no_rope_layers=[0] * arm.num_layers)
    return LlamaConfig(**shape)


def _weights(decoder: Decoder) -> dict[str, Tensor]:
    found = {
        "model.embed_tokens.weight": decoder.embed.weight,
        "model.norm.weight": decoder.norm.weight,
        "lm_head.weight": decoder.head.weight,
    }
    for number, layer in enumerate(decoder.layers):
        parts: Any = layer
        q, k, v = parts.qkv.weight.chunk(3)
        gate, up = parts.up.weight.chunk(2)
        of_layer = {
            "input_layernorm.weight": parts.norms[0].weight,
            "post_attention_layernorm.weight": parts.norms[1].weight,
            "self_attn.q_proj.weight": q,
            "self_attn.k_proj.weight": k,
            "self_attn.v_proj.weight": v,
            "self_attn.o_proj.weight": parts.out.weight,
            "mlp.gate_proj.weight": gate,
            "mlp.up_proj.weight": up,
            "mlp.down_proj.weight": parts.down.weight,
        }
        if decoder.arm.sink == "logit":
            of_layer["self_attn.sinks"] = parts.sink_logits
        if decoder.arm.sink == "gate":
            of_layer["self_attn.gate_proj.weight"] = parts.gate.weight
            of_layer["self_attn.gate_proj.bias"] = parts.gate.bias
        found |= {f"model.layers.{number}.{name}": tensor for name, tensor in of_layer.items()}
    return {name: tensor.detach().cpu().float() for name, tensor in found.items()}


def _tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer whose ids are bytes; the sink token follows them."""
    characters = bytes_to_unicode()
    vocabulary = {characters[byte]: byte for byte in range(256)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<sink>"])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)
