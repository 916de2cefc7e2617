"""Modules that operators replace: found by what they compute, replaced in streams only."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GlmConfig,
    GlmForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Olmo2Config,
    Olmo2ForCausalLM,
    PreTrainedModel,
)

from streamingllm import SinkCache, Stream, StreamConfig
from streamingllm.integration import attach, fused_modules
from streamingllm.kernels import native
from streamingllm.kernels.operators import rotate
from streamingllm.positions import rope
from tests.reference.tiny_llama import random_ids, tiny_llama

pytestmark = pytest.mark.skipif(not native.load(), reason="needs the native kernels")

SIZES = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
}
CONFIG = StreamConfig(num_sink_tokens=2, window_size=12, chunk_size=24)


def wide_llama(dtype: torch.dtype) -> LlamaForCausalLM:
    """Heads as large as the operators want them."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(LlamaConfig(**{**SIZES, "head_dim": 32}))
    return model.to(dtype).eval().requires_grad_(False)


def copied(model: PreTrainedModel) -> LlamaForCausalLM:
    copy = LlamaForCausalLM(model.config).to(model.dtype).eval().requires_grad_(False)
    copy.load_state_dict(model.state_dict())
    return copy


@pytest.fixture(autouse=True)
def _without_amx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": False})


def found(modules: nn.Module) -> list[nn.Module]:
    return [module for module, _ in fused_modules.fused_modules(modules)]


def kinds(model: PreTrainedModel) -> set[str]:
    return {type(module).__name__ for module in found(model.get_decoder())}


def streamed(model: PreTrainedModel) -> Tensor:
    return Stream(model, CONFIG).feed(random_ids(60))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_all_that_llama_computes_is_fused(dtype: torch.dtype) -> None:
    assert kinds(tiny_llama(dtype)) == {"LlamaRMSNorm", "LlamaMLP", "LlamaAttention"}


def test_what_rounds_gates_or_rotates_otherwise_has_none() -> None:
    # Olmo 2 multiplies before it rounds; Gemma adds 1 to its weights and gates with GELU.
    olmo = Olmo2ForCausalLM(Olmo2Config(**SIZES)).eval().bfloat16()
    assert kinds(olmo) == {"Olmo2MLP", "Olmo2Attention"}
    gemma = Gemma2ForCausalLM(Gemma2Config(**SIZES)).eval().bfloat16()
    assert kinds(gemma) == {"Gemma2Attention"}
    # GLM's pairs are neighbours.
    glm = GlmForCausalLM(GlmConfig(**SIZES, pad_token_id=0)).eval().bfloat16()
    assert "GlmAttention" not in kinds(glm)


class Gate(nn.Module):
    """A gate that may scale what it is given, as its class does not tell."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = (nn.Linear(16, 32, bias=False).bfloat16() for _ in range(2))
        self.down_proj = nn.Linear(32, 16, bias=False).bfloat16()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        x = x * self.factor
        out: Tensor = self.down_proj(nn.functional.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


def test_each_module_is_checked_by_itself() -> None:
    plain, scaled = Gate(1.0), Gate(2.0)
    gates = [module for module in found(nn.ModuleList([scaled, plain])) if type(module) is Gate]
    assert gates == [plain]
    assert all("forward" not in vars(module) for module in plain.modules())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_stream_computes_the_same_with_them(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = wide_llama(dtype)
    turned: list[Tensor] = []

    def noted(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        turned.append(x)
        return rotate(x, cos, sin)

    monkeypatch.setattr(fused_modules, "rotate", noted)
    with_them = streamed(model)
    assert turned
    monkeypatch.setattr(rope, "can_turn", lambda x, cos: False)  # for the sinks
    monkeypatch.setattr(attach, "fused_modules", lambda decoder: iter(()))
    monkeypatch.setattr(attach, "fused_products", lambda decoder: {})
    without = streamed(copied(model))
    tolerance = 1e-5 if dtype is torch.float32 else 0.03
    torch.testing.assert_close(with_them, without, atol=tolerance, rtol=tolerance)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Inputs of the fused norm."""
    seen: list[Tensor] = []
    compute: Callable[..., Tensor] = fused_modules._rms_norm

    def noted(module: nn.Module, x: Tensor) -> Tensor:
        seen.append(x)
        return compute(module, x)

    monkeypatch.setattr(fused_modules, "_rms_norm", noted)
    return seen


def test_only_streams_without_gradients_use_them(calls: list[Tensor]) -> None:
    model = copied(tiny_llama(torch.float32))
    cache = SinkCache(model, 2, 12)
    ids = random_ids(1, 9)
    calls.clear()  # those of the self-check
    with torch.no_grad():
        model(ids, use_cache=False)
    model(ids, past_key_values=cache)
    assert not calls
    with torch.no_grad():
        model(ids, past_key_values=cache)
    assert len(calls) == 5  # two for each layer, and the last


def test_a_model_in_training_uses_none(calls: list[Tensor]) -> None:
    model = copied(tiny_llama(torch.float32))
    cache = SinkCache(model, 2, 12)
    model.train()
    calls.clear()
    with torch.no_grad():
        model(random_ids(1, 9), past_key_values=cache)
    assert not calls


def test_nothing_is_left_of_them() -> None:
    model = copied(tiny_llama(torch.float32))
    before = [sorted(vars(module)) for module in model.modules()]
    cache = SinkCache(model, 2, 12)
    assert [sorted(vars(module)) for module in model.modules()] != before
    cache.disable()
    assert [sorted(vars(module)) for module in model.modules()] == before
