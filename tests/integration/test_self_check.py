"""Models that do something of their own around attention are seen through, or refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from packaging.version import Version
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from streamingllm import SinkCache, Stream, StreamConfig
from streamingllm.attention import dispatch
from streamingllm.cache.ring import RingLayer
from streamingllm.errors import UnsupportedModelError
from streamingllm.graphs.step_support import unsupported_reason
from streamingllm.integration import self_check
from streamingllm.kernels import native
from tests.reference.families import model_of
from tests.reference.family import COMMON, config_of, with_random_weights
from tests.reference.tiny_llama import tiny_llama

EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
ROUTED = {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
TWO_FULL = {"num_hidden_layers": 2, "layer_types": ["full_attention"] * 2}
WIDTHS = {"head_dim": 32, "v_head_dim": 16, "swa_head_dim": 32, "swa_v_head_dim": 16}
# Its keys and values change between cache and attention, its heads fit no kernel, or its values are
# narrower than its keys, which kernels take.
UNUSUAL: dict[str, tuple[dict[str, Any], str | None]] = {
    "diffllama": ({}, "layer 0 attends to other keys than its cache returns"),
    "jetmoe": (EXPERTS | {"kv_channels": 16}, "layer 0 attends to other keys"),
    "hrm_text": (
        {"num_layers_per_stack": 1, "num_hidden_layers": 8, "head_dim": 16},
        "layer 0 attends to other keys",
    ),
    "mimo_v2_flash": (ROUTED | TWO_FULL | WIDTHS, None),
    "lfm2": (TWO_FULL | {"num_attention_heads": 8}, "key heads have 8 numbers"),
}
needs_kernels = pytest.mark.skipif(not native.load(), reason="needs the native kernels")


def build(model_type: str, fields: dict[str, Any]) -> PreTrainedModel:
    """Return a tiny model in float32, which decode steps take."""
    transformers.logging.set_verbosity_error()
    per_kind = model_type in ("mimo_v2_flash", "beam")  # these have rope parameters per kind
    common = {k: v for k, v in COMMON.items() if k != "rope_parameters" or not per_kind}
    try:
        config = config_of(model_type, common | fields)
    except ValueError:
        pytest.skip(f"transformers {Version(transformers.__version__)} has no {model_type}")
    with torch.random.fork_rng():
        model = AutoModelForCausalLM.from_config(config, experts_implementation="eager")
    return with_random_weights(model).float()


@needs_kernels
@pytest.mark.parametrize("model_type", UNUSUAL)
def test_unusual_layers_equal_a_pass_over_all_tokens(model_type: str) -> None:
    fields, reason = UNUSUAL[model_type]
    model, ids = build(model_type, fields), torch.arange(3, 43)
    with SinkCache(model, 2, 6) as cache:
        found = unsupported_reason(model, cache.attachment, cache.encodings)
    assert (found is None) == (reason is None)
    assert reason is None or reason in str(found)
    config = StreamConfig(num_sink_tokens=2, window_size=6)
    whole, stepped = Stream(model, config), Stream(model, config)
    logits = torch.cat([stepped.feed(token) for token in ids.split(1)])
    torch.testing.assert_close(logits, whole.feed(ids), rtol=0, atol=1e-4)


@needs_kernels
@pytest.mark.parametrize("model_type", ["mixtral", "llama"])
def test_head_sizes_are_seen_not_declared(model_type: str) -> None:
    """The configuration of mixtral says that `head_dim` is None."""
    fields = EXPERTS if model_type == "mixtral" else {}
    model = build(model_type, fields)
    with SinkCache(model, 2, 6) as cache:
        assert cache.attachment.facts is not None
        assert cache.attachment.facts.head_dims == {(16, 16)}
        assert unsupported_reason(model, cache.attachment, cache.encodings) is None


def test_scales_by_absolute_position_are_refused() -> None:
    fields = ROUTED | {"num_experts": 4, "num_local_experts": 4, "head_dim": 16}
    model = build("beam", fields | {"max_position_embeddings": 4096})
    with pytest.raises(UnsupportedModelError, match=r"beam cannot stream: it scales .*; use a"):
        SinkCache(model)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_widths_of_latent_keys(dtype: torch.dtype) -> None:
    model = model_of("deepseek-v3", dtype)
    with SinkCache(model, 2, 6) as cache:
        assert cache.attachment.facts is not None
        assert all(key != value for key, value in cache.attachment.facts.head_dims)


Broken = Callable[[pytest.MonkeyPatch], None]


def no_second_pass(patch: pytest.MonkeyPatch) -> None:
    """Forget what earlier passes have written."""
    patch.setattr(RingLayer, "commit", lambda self: self.rollback())


def another_sum(patch: pytest.MonkeyPatch) -> None:
    """Attend to values of twice the size, once there are sinks to see."""
    attend = dispatch.attend

    def wrong(q: Tensor, k: Tensor, v: Tensor, plan: Any, *args: Any, **rule: Any) -> Tensor:
        return attend(q, k, v * (2 if plan.num_sinks else 1), plan, *args, **rule)

    patch.setattr(dispatch, "attend", wrong)


def wrong_single_tokens(patch: pytest.MonkeyPatch) -> None:
    """Attend to other values when one token is fed."""
    attend = dispatch.attend

    def wrong(q: Tensor, k: Tensor, v: Tensor, *args: Any, **rule: Any) -> Tensor:
        return attend(q, k, v.flip(2) if q.shape[2] == 1 else v, *args, **rule)

    patch.setattr(dispatch, "attend", wrong)


def nothing_evicted(patch: pytest.MonkeyPatch) -> None:
    """See every token of the first pass."""
    attend = dispatch.attend

    def wrong(q: Tensor, k: Tensor, v: Tensor, *args: Any, **rule: Any) -> Tensor:
        if q.shape[2] == self_check.PASSES[0]:
            same: Tensor = torch.nn.functional.scaled_dot_product_attention(
                q, k, v, is_causal=True, enable_gqa=True, scale=rule["scale"]
            )
            return same
        return attend(q, k, v, *args, **rule)

    patch.setattr(dispatch, "attend", wrong)


@pytest.mark.parametrize(
    "break_it", [no_second_pass, another_sum, wrong_single_tokens, nothing_evicted]
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_what_computes_otherwise_is_refused_and_left_alone(
    break_it: Broken, dtype: torch.dtype
) -> None:
    model = tiny_llama.__wrapped__(dtype)
    before = [sorted(vars(module)) for module in model.modules()]
    with pytest.MonkeyPatch.context() as patch:
        break_it(patch)
        with pytest.raises(UnsupportedModelError, match="llama cannot stream"):
            SinkCache(model)
    assert [sorted(vars(module)) for module in model.modules()] == before
    SinkCache(model).disable()  # it is checked again, and right
