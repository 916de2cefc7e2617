"""Every class that transformers maps streams and equals the oracles, or is refused for a reason.

`pytest -m slow tests/sweep` walks all of them in a few minutes. A quick run takes one of each kind.
After a new release of transformers, a family that fails here is new, or has changed.
"""

from __future__ import annotations

import pytest
import torch

from benchmarks import families_page
from streamingllm import SinkCache, Stream, StreamConfig
from streamingllm.errors import UnsupportedFeatureError, UnsupportedModelError
from streamingllm.graphs.step_support import unsupported_reason
from streamingllm.integration.attach import attachment_of
from streamingllm.kernels import native
from tests.sweep.checks import LIMITS, differences, refusal
from tests.sweep.fields import VARIANTS
from tests.sweep.reviewed import NOT_BUILT, REFUSED, REFUSED_VARIANTS, refusal_of
from tests.sweep.small_models import CAUSAL, MULTIMODAL, small_config, small_model

QUICK = (
    "codegen",
    "deepseek_v32",
    "gemma3",
    "gemma3n_text",
    "gemma4, shared keys",
    "gemma4_unified",
    "glm4v",
    "gpt_neox_japanese",
    "granitemoehybrid, attention only",
    "llava",
    "minicpmv4_6",
    "ministral3, scaled from 64",
    "molmo2",
    "nanochat",
    "phi4_multimodal",
    "qwen3_next",
    "zamba2",
)
QUICK_REFUSALS = (
    "beam",
    "deepseek_v4",
    "diffusion_gemma",
    "inkling2_text",
    "llama4_text, no chunks",
    "marian",
    "minimax_m3_vl_text, sparse",
    "mistral_large4",
    "modernbert-decoder",
    "nemotron_h_omni",
    "paligemma",
)
ALL = (*CAUSAL, *MULTIMODAL, *VARIANTS)


def check(name: str) -> None:
    """Demand of a family what the lists say."""
    if VARIANTS.get(name, (name,))[0] not in (*CAUSAL, *MULTIMODAL):
        pytest.skip("this transformers has no such family")
    model, reviewed = small_model(name), refusal_of(name)
    reason = refusal(model)
    if reviewed is not None:
        assert reason is not None, f"{name} streams now; take it off the list of refusals"
        assert f" cannot stream: {reviewed}" in reason
        assert "\n" not in reason
        return
    assert reason is None
    found = differences(name, model)
    assert {oracle: apart for oracle, apart in found.items() if apart > LIMITS[oracle]} == {}


@pytest.mark.parametrize("name", [*QUICK, *QUICK_REFUSALS])
def test_one_of_each_kind(name: str) -> None:
    check(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in ALL if n not in NOT_BUILT])
def test_every_family(name: str) -> None:
    check(name)


def test_the_lists_name_each_family_once() -> None:
    refused = [name for names in REFUSED.values() for name in names.split()]
    names = [*refused, *REFUSED_VARIANTS, *NOT_BUILT]
    assert len(names) == len(set(names))
    assert set(REFUSED_VARIANTS) <= set(VARIANTS)


@pytest.mark.parametrize("name", ["deepseek_v32", "ministral3, scaled from 64"])
def test_a_cache_past_the_reach_of_a_model_is_refused(name: str) -> None:
    """Up to there the model is what it is in a stream; one token more and it is not."""
    if VARIANTS.get(name, (name,))[0] not in CAUSAL:
        pytest.skip("this transformers has no such family")
    model = small_model(name)
    limit = 64 if "scaled" in name else small_config(name).index_topk
    ids = torch.arange(limit + 8) % 90 + 3
    stream = Stream(model, StreamConfig(num_sink_tokens=4, window_size=limit - 4))
    with torch.no_grad():
        dense = model(ids[None, :limit], use_cache=False).logits[0]
    torch.testing.assert_close(stream.feed(ids)[:limit], dense, rtol=0, atol=1e-4)
    message = rf"num_sink_tokens \+ window_size={limit + 1} .* choose {limit} or less"
    with pytest.raises(UnsupportedFeatureError, match=message):
        SinkCache(model, 4, limit - 3)


def test_a_layer_without_keys_costs_no_memory() -> None:
    model = small_model("gemma4_text, shared keys")
    with SinkCache(model, 2, 6, max_rewind_tokens=0) as cache:
        assert attachment_of(model).readers == (2, 1)
        model(torch.arange(3, 30)[None], past_key_values=cache)
        # Of five layers three have keys: two local ones with heads of 16, a global one of 32.
        assert cache.nbytes == 8 * (2 + 6) * 2 * 2 * (16 + 32 + 16)


@pytest.mark.skipif(not native.load(), reason="needs the native kernels")
@pytest.mark.parametrize("name", ["gemma4_text, shared keys", "gemma3n_text"])
@pytest.mark.parametrize("quantize", ["none", "int8"])
def test_layers_without_keys_have_a_decode_step(name: str, quantize: str) -> None:
    """Its rings, and what rewinding needs of them, are those of ordinary passes."""
    model, ids = small_model(name).float(), torch.arange(3, 43)
    config = StreamConfig(2, 6, max_rewind_tokens=4, quantize_cache=quantize)
    stepped, whole = Stream(model, config), Stream(model, config)
    with SinkCache.of(model, config) as cache:
        assert unsupported_reason(model, cache.attachment, cache.encodings) is None
    stepped.feed(ids[:9])
    for token in ids[9:].split(1):
        stepped.feed(token)
    whole.feed(ids)
    for stream in (stepped, whole):
        stream.rewind(3)
    new = torch.arange(50, 60)
    tolerance = 1e-4 if quantize == "none" else 0.3
    torch.testing.assert_close(stepped.feed(new), whole.feed(new), rtol=0, atol=tolerance)


def test_pictures_with_positions_of_their_own_are_refused() -> None:
    """The decoder gets them merged into its text: what counts is that the pass has any."""
    model = small_model("qwen2_vl")
    vectors = model.get_input_embeddings()(torch.arange(3, 15)[None])
    axes = torch.arange(12).expand(3, 1, -1) * torch.tensor([[[1]], [[2]], [[3]]])
    arguments = {"inputs_embeds": vectors, "position_ids": axes}
    with (
        SinkCache(model, 2, 6) as cache,
        pytest.raises(UnsupportedFeatureError, match="pictures positions of their own"),
    ):
        model(**arguments, past_key_values=cache, pixel_values_from_elsewhere=torch.ones(1))


def test_the_page_of_families_is_made_of_the_results() -> None:
    text = families_page.PAGE.read_text()
    assert families_page.page(text) == text


def test_models_that_are_refused_are_left_alone() -> None:
    model = small_model("mistral_large4") if "mistral_large4" in MULTIMODAL else small_model("doge")
    before = [sorted(vars(module)) for module in model.modules()]
    with pytest.raises(UnsupportedModelError):
        SinkCache(model)
    assert [sorted(vars(module)) for module in model.modules()] == before
