"""The self-check in half precision: rounding passes, another rule does not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from streamingllm import SinkCache
from streamingllm.attention import dispatch
from streamingllm.attention.forward_plan import ForwardPlan
from streamingllm.errors import UnsupportedModelError
from streamingllm.integration.checked_cache import agree
from tests.reference.family import COMMON, with_random_weights

BIAS = 60.0  # of keys, as large as in the first layer of Qwen 2.5


def qwen_with_large_keys(dtype: torch.dtype) -> PreTrainedModel:
    """Return a small Qwen 2.5 whose scores reach thousands."""
    torch.manual_seed(0)
    model = with_random_weights(Qwen2ForCausalLM(Qwen2Config(**COMMON)))
    for layer in model.model.layers:
        bias = layer.self_attn.k_proj.bias
        bias.data = BIAS * torch.randn(bias.shape, generator=torch.Generator().manual_seed(0))
    return model.to(dtype)


def difference_of_passes(model: PreTrainedModel, exact: PreTrainedModel) -> float:
    """Return how far hidden states of transformers' own pass are from those in float64."""
    ids = torch.arange(12)[None]
    with torch.no_grad():
        wrong, right = (m.model(ids, use_cache=False)[0].double() for m in (model, exact))
    return float(((wrong - right).norm(dim=-1) / right.norm(dim=-1)).max())


def test_rounding_of_large_scores_is_no_reason_to_refuse() -> None:
    model = qwen_with_large_keys(torch.bfloat16)
    assert difference_of_passes(model, qwen_with_large_keys(torch.float64)) > 0.05  # it is theirs
    SinkCache(model, 2, 6)


@pytest.mark.parametrize("mistake", ["no sinks", "shorter window", "other scale"])
def test_another_rule_is_refused_in_half_precision(
    mistake: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = dispatch.attend

    def wrong(q: Tensor, k: Tensor, v: Tensor, *args: Any, **rule: Any) -> Tensor:
        if mistake == "no sinks":
            v = torch.cat((torch.zeros_like(v[:, :, :2]), v[:, :, 2:]), dim=2)
        elif mistake == "shorter window":
            v = torch.cat((v[:, :, :2], torch.zeros_like(v[:, :, 2:3]), v[:, :, 3:]), dim=2)
        else:
            rule["scale"] = 1.5 * rule["scale"]
        return right(q, k, v, *args, **rule)

    def attend(
        self: ForwardPlan, layer: int, q: Tensor, k: Tensor, v: Tensor, **rule: Any
    ) -> Tensor:
        compute = wrong if self.windows[layer].num_sinks else right
        return compute(q, k, v, self.windows[layer], self.encodings[layer], **rule)

    torch.manual_seed(0)
    model = with_random_weights(Qwen2ForCausalLM(Qwen2Config(**COMMON))).bfloat16()
    monkeypatch.setattr(ForwardPlan, "attend", attend)
    with pytest.raises(UnsupportedModelError, match="attention does more"):
        SinkCache(model, 2, 6)


def test_a_head_is_allowed_twice_the_rounding_of_the_reference() -> None:
    expected = torch.ones(1, 2, 3, 4)
    rounded = expected.clone()
    rounded[:, 0] = 1.25
    out = expected.clone()
    out[:, 0] = 1.5
    assert agree(out, expected, rounded, None)
    assert not agree(out.flip(1), expected, rounded, None)  # the other head loses nothing
    assert not agree(out, expected, None, None)
    padding = torch.tensor([[False, True, True]])
    out[:, :, 0] = 9.0
    assert agree(out, expected, rounded, padding)
