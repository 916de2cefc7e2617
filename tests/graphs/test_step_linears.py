"""Layers that read the same activations lie side by side, and nothing else changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from streamingllm.graphs import step_linears
from streamingllm.graphs.step_linears import SIBLINGS, StepLinears, join_siblings
from streamingllm.integration.linears import shadow_linears
from streamingllm.models import quantize
from streamingllm.models.quantize import install_layers
from streamingllm.models.rounding import Rounding, quantize_layers
from tests.reference.tiny_llama import random_ids

LAYER_SETS = [f"self_attn.{'_'.join(SIBLINGS[0])}", f"mlp.{'_'.join(SIBLINGS[1])}"]


@contextmanager
def stepping(model: nn.Module, linears: StepLinears) -> Iterator[list[Tensor]]:
    """Compute the products of a step without gradients; yield what they are given."""
    inputs: list[Tensor] = []
    operators = [
        patch.object(module, name, _noting(inputs, getattr(module, name)))
        for module, name in ((step_linears, "linear"), (quantize, "quantized_linear"))
    ]
    undo = shadow_linears(model)
    with torch.no_grad(), operators[0], operators[1], linears.active():
        yield inputs
    undo()


def _noting(inputs: list[Tensor], product: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def noted(x: Tensor, *weights: Tensor | None) -> Tensor:
        inputs.append(x)
        return product(x, *weights)

    return noted


def tiny(quantization: str = "none", **fields: object) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        **fields,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter += torch.arange(len(parameter)) / 100
    if quantization != "none":
        install_layers(model, quantize_layers(model, Rounding(int(quantization[3:]))))
    return model


@pytest.mark.parametrize("quantization", ["none", "int8", "int4"])
@pytest.mark.parametrize("has_bias", [False, True])
def test_joined_layers_are_views_and_compute_the_same(quantization: str, has_bias: bool) -> None:
    model = tiny(quantization, attention_bias=has_bias)
    ids = random_ids(1, 7)
    expected = model(ids).logits
    join_siblings(model)
    name = "weight" if quantization == "none" else "codes"
    for layer in model.model.layers:
        for parent, names in ((layer.self_attn, SIBLINGS[0]), (layer.mlp, SIBLINGS[1])):
            parts = [getattr(getattr(parent, n), name) for n in names]
            assert len({part.untyped_storage().data_ptr() for part in parts}) == 1
            assert parts[1].data_ptr() == parts[0].data_ptr() + parts[0].nbytes
    assert torch.equal(model(ids).logits, expected)


@pytest.mark.parametrize("quantization", ["none", "int8", "int4"])
@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("is_joined", [False, True])
def test_products_of_a_step_equal_the_layers_own(
    quantization: str, has_bias: bool, is_joined: bool
) -> None:
    model = tiny(quantization, attention_bias=has_bias, mlp_bias=has_bias)
    if is_joined:
        join_siblings(model)
    ids = random_ids(1, 5)
    expected = model(ids).logits
    linears = StepLinears(model)
    with stepping(model, linears) as inputs:
        torch.testing.assert_close(model(ids).logits, expected, rtol=1e-3, atol=1e-4)
    # Per layer 7 products, or 4 where siblings share one; and the head.
    assert len(inputs) == (2 * 4 if is_joined else 2 * 7) + 1
    assert torch.equal(model(ids).logits, expected)
    assert not any("forward" in vars(module) for module in model.modules())
    has_sets = [any(s in name for name in linears.tensors) for s in LAYER_SETS]
    assert has_sets == [is_joined, is_joined]


def test_joining_twice_moves_nothing() -> None:
    model = tiny()
    join_siblings(model)
    where = [p.data_ptr() for p in model.parameters()]
    join_siblings(model)
    assert [p.data_ptr() for p in model.parameters()] == where


def test_layers_with_and_without_bias_are_not_multiplied_together() -> None:
    model = tiny()
    mlp = model.model.layers[0].mlp
    mlp.up_proj.bias = nn.Parameter(torch.ones(96), requires_grad=False)
    join_siblings(model)
    ids = random_ids(1, 3)
    expected = model(ids).logits
    linears = StepLinears(model)
    assert not any(name.startswith("model.layers.0.mlp.gate_proj_up") for name in linears.tensors)
    with stepping(model, linears):
        torch.testing.assert_close(model(ids).logits, expected, rtol=1e-3, atol=1e-4)


def test_other_kinds_of_layers_are_left_alone() -> None:
    class Doubled(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(x)

    model = tiny()
    attention = model.model.layers[0].self_attn
    attention.q_proj.__class__ = Doubled
    join_siblings(model)
    ids = random_ids(1, 3)
    expected = model(ids).logits
    linears = StepLinears(model)
    assert not any("layers.0.self_attn.q_proj" in name for name in linears.tensors)
    with stepping(model, linears):
        torch.testing.assert_close(model(ids).logits, expected, rtol=1e-3, atol=1e-4)


def test_a_joined_model_can_be_saved_and_cast(tmp_path: Path) -> None:
    model = tiny()
    join_siblings(model)
    ids = random_ids(1, 7)
    expected = model(ids).logits
    model.save_pretrained(tmp_path)
    assert torch.equal(AutoModelForCausalLM.from_pretrained(tmp_path)(ids).logits, expected)
    torch.testing.assert_close(model.double()(ids).logits.float(), expected, rtol=0, atol=1e-4)
