from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import LlamaForCausalLM

from streamingllm.errors import ConfigError
from streamingllm.kernels.packing import unpack_weight
from streamingllm.models.quantize import (
    QuantizedLinear,
    check_quantization,
    install_layers,
    quantization_of,
    quantize_weight,
)
from streamingllm.models.rounding import Rounding, quantize_layers
from tests.reference.tiny_llama import new_llama

Kind = gguf.GGMLQuantizationType
FORMATS = {Kind.Q4_0: 4, Kind.Q4_1: 4, Kind.Q8_0: 8}


def random_weight(rows: int, columns: int, seed: int = 0, spread: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=generator) * spread


def through_gguf(weight: Tensor, kind: Kind) -> Tensor:
    """What a GGUF file of that format gives back."""
    blocks = gguf.quantize(weight.numpy(), kind)
    return torch.from_numpy(gguf.dequantize(blocks, kind).astype(np.float32))


@pytest.mark.parametrize("kind", FORMATS, ids=lambda kind: kind.name)
@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    spread=st.sampled_from([1e-3, 0.02, 1.0, 100.0]),
    offset=st.sampled_from([0.0, 0.0, 0.5, -3.0]),
)
def test_blocks_of_gguf_are_found_again_to_the_bit(
    kind: Kind, seed: int, spread: float, offset: float
) -> None:
    weight = random_weight(32, 96, seed, spread) + offset * spread
    weight[seed % 32, :32] = 0  # whole blocks of zeros occur
    stored = through_gguf(weight, kind)
    packed, is_exact = quantize_weight(stored, FORMATS[kind])
    assert is_exact
    assert torch.equal(unpack_weight(*packed.tensors), stored)


def test_symmetric_blocks_need_no_minimums() -> None:
    weight = random_weight(16, 64)
    assert quantize_weight(through_gguf(weight, Kind.Q4_0), 4)[0].minimums is None
    assert quantize_weight(through_gguf(weight, Kind.Q4_1), 4)[0].minimums is not None
    assert quantize_weight(through_gguf(weight, Kind.Q8_0), 8)[0].minimums is None


@pytest.mark.parametrize("num_bits", [4, 8])
@pytest.mark.parametrize("spread", [1e-3, 1.0, 50.0])
def test_other_weights_are_rounded_by_half_a_step(num_bits: int, spread: float) -> None:
    weight = random_weight(64, 128, spread=spread)
    packed, is_exact = quantize_weight(weight, num_bits)
    assert not is_exact
    groups = weight.unflatten(1, (-1, 32))
    low, high = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
    step = (high - low) / 15 if num_bits == 4 else groups.abs().amax(-1, keepdim=True) / 127
    error = (unpack_weight(*packed.tensors).unflatten(1, (-1, 32)) - groups).abs()
    # Scales and minimums are rounded to half precision: 2^-11 of what they are multiplied to.
    slack = 2**-10 * groups.abs().amax(-1, keepdim=True)
    assert bool((error <= step / 2 + slack).all())


def tiny(
    *, tied: bool = False, hidden: int = 64, vocab: int = 48, bias: bool = False
) -> LlamaForCausalLM:
    return new_llama(
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=96,
        num_hidden_layers=1,
        attention_bias=bias,
        tie_word_embeddings=tied,
    )


def bits_of(model: nn.Module, name: str) -> int:
    packed = model.get_submodule(name)
    assert isinstance(packed, QuantizedLinear)
    return packed.codes.shape[1] // packed.scale_bits.shape[1]


def test_layers_that_do_not_fit_are_left() -> None:
    model = tiny(vocab=50)
    model.model.layers[0].mlp.down_proj = nn.Linear(100, 64, bias=False)
    packed = quantize_layers(model, Rounding(4))
    assert {name.rpartition(".")[2] for name in packed} == {
        *("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj")
    }
    install_layers(model, packed)
    assert type(model.lm_head) is nn.Linear
    assert type(model.model.layers[0].mlp.down_proj) is nn.Linear


def test_a_head_that_four_bits_would_round_gets_eight() -> None:
    model = tiny()
    install_layers(model, quantize_layers(model, Rounding(4)))
    assert bits_of(model, "lm_head") == 8
    assert bits_of(model, "model.layers.0.mlp.up_proj") == 4
    assert quantization_of(model) == "int4"


def test_a_head_that_was_four_bits_stays_so() -> None:
    model = tiny()
    model.lm_head.weight.copy_(through_gguf(model.lm_head.weight, Kind.Q4_1))
    install_layers(model, quantize_layers(model, Rounding(4)))
    assert bits_of(model, "lm_head") == 4


def test_a_tied_head_is_packed_and_the_embedding_stays() -> None:
    model = tiny(tied=True)
    embedding = model.model.embed_tokens.weight.clone()
    install_layers(model, quantize_layers(model, Rounding(8)))
    assert torch.equal(model.model.embed_tokens.weight, embedding)
    torch.testing.assert_close(model.lm_head.weight, embedding, rtol=0, atol=1e-3)
    assert quantization_of(model) == "int8"


@pytest.mark.parametrize("quantization", ["int8", "int4"])
def test_a_packed_model_computes_what_its_weights_say(quantization: str) -> None:
    model, dense = tiny(bias=True), tiny(bias=True)
    for layer in (model.model.layers[0].self_attn, dense.model.layers[0].self_attn):
        layer.q_proj.bias.copy_(random_weight(1, 64, seed=5)[0])
    install_layers(model, quantize_layers(model, Rounding(int(quantization[3:]))))
    for name, module in model.named_modules():
        if isinstance(module, QuantizedLinear):
            dense.get_parameter(f"{name}.weight").copy_(module.weight)
    assert torch.equal(
        model.model.layers[0].self_attn.q_proj.bias, dense.model.layers[0].self_attn.q_proj.bias
    )
    for length in (1, 5, 19, 20, 100):
        ids = torch.arange(length)[None] % 48
        torch.testing.assert_close(
            model(ids).logits, dense(ids).logits, rtol=1e-4, atol=1e-4, msg=f"{length} tokens"
        )


def test_both_ways_to_multiply_agree() -> None:
    weight, bias = random_weight(32, 64), random_weight(1, 32, seed=1)[0]
    layer = QuantizedLinear(quantize_weight(weight, 4)[0], bias)
    x = random_weight(50, 64, seed=2)
    few = torch.cat([layer(part) for part in x.split(7)])
    # Few rows meet the codes as 16-bit integers: half a step of each group of 32 at most.
    steps = x.unflatten(1, (-1, 32)).abs().amax(-1) / 32767
    bound = steps / 2 @ layer.weight.unflatten(1, (-1, 32)).abs().sum(-1).mT
    assert ((layer(x) - few).abs() <= 1.01 * bound + 1e-5).all()
    assert (layer.in_features, layer.out_features) == (64, 32)
    assert repr(layer) == "QuantizedLinear(in_features=64, out_features=32, bits=4)"


def test_casting_a_model_leaves_scales_alone() -> None:
    layer = QuantizedLinear(quantize_weight(random_weight(16, 64), 8)[0])
    before = layer.weight
    assert torch.equal(layer.to(torch.bfloat16).weight, before)
    assert torch.equal(layer.double().weight, before)


def test_a_model_without_packed_layers_has_no_quantization() -> None:
    assert quantization_of(tiny()) == "none"


@pytest.mark.parametrize("word", ["int3", "", "INT4", "q4_0"])
def test_a_wrong_word_is_refused(word: str) -> None:
    with pytest.raises(
        ConfigError,
        match=f"quantize='{word}' is unknown; choose one of auto, none, native",
    ):
        check_quantization(word)
