"""A model is lent for the length of a pass, however the pass ends."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from streamingllm import SinkCache
from streamingllm.attention.forward_plan import active_plan
from streamingllm.errors import InputError, UnsupportedFeatureError
from streamingllm.integration.adapters import override
from streamingllm.integration.attach import attachment_of
from tests.reference.families import model_of
from tests.reference.tiny_llama import random_ids, tiny_llama

FAMILIES = ["llama", "gemma2-6", "falcon-new", "gptj", "mpt", "bloom"]


@contextmanager
def breaking(module: nn.Module, error: BaseException) -> Iterator[None]:
    """Raise `error` once `module` has run."""

    def fail(*args: Any) -> None:
        raise error

    with module.register_forward_hook(fail):
        yield


def last_layer(model: PreTrainedModel) -> nn.Module:
    blocks = [m for m in model.modules() if isinstance(m, nn.ModuleList)]
    return blocks[0][-1]


def bad_argument(model: PreTrainedModel, ids: Tensor, cache: SinkCache) -> None:
    with pytest.raises(TypeError):
        model.get_decoder()(ids, past_key_values=cache, input_ids=ids)


def bad_token(model: PreTrainedModel, ids: Tensor, cache: SinkCache) -> None:
    with pytest.raises(IndexError):
        model(torch.full_like(ids, 10_000), past_key_values=cache)


def bad_mask(model: PreTrainedModel, ids: Tensor, cache: SinkCache) -> None:
    with pytest.raises(UnsupportedFeatureError, match="attention_mask"):
        model(ids, past_key_values=cache, attention_mask=torch.ones(1, 1, 1, 1))


def bad_batch(model: PreTrainedModel, ids: Tensor, cache: SinkCache) -> None:
    with pytest.raises(InputError, match="2 rows"):
        model(ids.expand(2, -1), past_key_values=cache)


def broken_layer(model: PreTrainedModel, ids: Tensor, cache: SinkCache) -> None:
    with (
        breaking(last_layer(model), ValueError("broken")),
        pytest.raises(ValueError, match="broken"),
    ):
        model(ids, past_key_values=cache)


def interrupted(model: PreTrainedModel, ids: Tensor, cache: SinkCache) -> None:
    with breaking(last_layer(model), KeyboardInterrupt()), pytest.raises(KeyboardInterrupt):
        model(ids, past_key_values=cache)


def out_of_memory_while_planning(model: PreTrainedModel, ids: Tensor, cache: SinkCache) -> None:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(SinkCache, "_plan_geometry", _no_memory)
        model(ids, past_key_values=cache)


def _no_memory(*args: Any) -> None:
    raise MemoryError


FAILURES = [
    bad_argument,
    bad_token,
    bad_mask,
    bad_batch,
    broken_layer,
    interrupted,
    out_of_memory_while_planning,
]


@pytest.mark.parametrize("fail", FAILURES)
@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("num_tokens", [1, 9])
@pytest.mark.parametrize("num_seen", [2, 40])
def test_a_pass_that_fails_leaves_everything_as_it_was(
    fail: Callable[[PreTrainedModel, Tensor, SinkCache], None],
    name: str,
    num_tokens: int,
    num_seen: int,
) -> None:
    model = model_of(name)
    before, lost, after = random_ids(1, num_seen), random_ids(1, num_tokens), random_ids(1, 12)
    implementation = model.config._attn_implementation
    logits = []
    for failing in (False, True):
        with torch.no_grad(), SinkCache(model, 3, 8) as cache:
            model(before, past_key_values=cache)
            if failing:
                fail(model, lost, cache)
                assert model.config._attn_implementation == implementation
                assert active_plan.get() is None
                assert cache.num_seen_tokens == num_seen
                assert_unlocked(model)
            steps = (*after[:, :5].split(1, dim=1), after[:, 5:])
            logits.append([model(ids, past_key_values=cache).logits for ids in steps])
    assert all(torch.equal(a, b) for a, b in zip(*logits, strict=True))


def assert_unlocked(model: PreTrainedModel) -> None:
    """Use the model from another thread, which a lock left behind would stop."""

    def use() -> None:
        with torch.no_grad():
            model(random_ids(1, 3))

    thread = threading.Thread(target=use, daemon=True)
    thread.start()
    thread.join(timeout=20)
    assert not thread.is_alive()


@pytest.mark.parametrize("undo", [0, 4])
def test_a_failed_pass_does_not_change_how_far_back_a_stream_can_go(undo: int) -> None:
    model, ids = tiny_llama(), random_ids(1, 30)
    with torch.no_grad(), SinkCache(model, 2, 8, max_rewind_tokens=undo) as cache:
        model(ids, past_key_values=cache)
        for _ in range(3):
            interrupted(model, ids[:, :1], cache)
        cache.rewind(undo)
        logits = model(ids[:, :5], past_key_values=cache).logits
    with torch.no_grad(), SinkCache(model, 2, 8) as fresh:
        model(ids[:, : 30 - undo], past_key_values=fresh)
        expected = model(ids[:, :5], past_key_values=fresh).logits
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-10)


def test_threads_do_not_see_each_others_passes() -> None:
    model, ids = tiny_llama(), random_ids(1, 24)
    results: list[Tensor] = []
    with torch.no_grad():
        dense = model(ids).logits

    def use_by_itself() -> None:
        for _ in range(20):
            with torch.no_grad():
                results.append(model(ids).logits)

    thread = threading.Thread(target=use_by_itself)
    with torch.no_grad(), SinkCache(model, 2, 8) as cache:
        thread.start()
        while thread.is_alive():
            model(ids, past_key_values=cache)
        thread.join()
    assert len(results) == 20
    assert all(torch.equal(result, dense) for result in results)


def test_two_caches_of_one_model_do_not_meet() -> None:
    model, ids = tiny_llama(), random_ids(2, 30)
    with torch.no_grad(), SinkCache(model, 2, 8) as one, SinkCache(model, 0, 5) as other:
        for chunk in ids.split(4, dim=1):
            last_of_one = model(chunk[:1], past_key_values=one).logits
            last_of_other = model(chunk[1:], past_key_values=other).logits
    for row, shape, last in ((0, (2, 8), last_of_one), (1, (0, 5), last_of_other)):
        with torch.no_grad(), SinkCache(model, *shape) as alone:
            expected = model(ids[row : row + 1], past_key_values=alone).logits
        torch.testing.assert_close(last, expected[:, -last.shape[1] :], rtol=0, atol=1e-10)


def test_attention_weights_are_refused_and_hidden_states_are_not() -> None:
    model, ids = tiny_llama(), random_ids(1, 12)
    with torch.no_grad(), SinkCache(model, 2, 4) as cache:
        with pytest.raises(UnsupportedFeatureError, match="output_attentions"):
            model(ids, past_key_values=cache, output_attentions=True)
        out = model(ids, past_key_values=cache, output_hidden_states=True)
    assert len(out.hidden_states) == 3


def test_a_model_is_not_kept_alive() -> None:
    config = LlamaConfig(
        vocab_size=61,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    model = LlamaForCausalLM(config).eval()
    cache = SinkCache(model, 2, 4)
    alive = weakref.ref(model)
    del cache, model
    gc.collect()
    assert alive() is None


def test_embeddings_in_place_of_ids() -> None:
    model, ids = tiny_llama(), random_ids(1, 20)
    with torch.no_grad(), SinkCache(model, 2, 4) as by_ids, SinkCache(model, 2, 4) as by_vectors:
        expected = model(ids, past_key_values=by_ids).logits
        vectors = model.get_input_embeddings()(ids)
        logits = model(inputs_embeds=vectors, past_key_values=by_vectors).logits
        with pytest.raises(InputError, match="input_ids"):
            model.model(past_key_values=by_ids)
    torch.testing.assert_close(logits, expected)


def test_overriding_twice_and_undoing_in_turn() -> None:
    module = nn.Linear(1, 1)
    own = module.forward
    first = override(module, "forward", lambda x: x + 1)
    second = override(module, "forward", lambda x: x + 2)
    assert module.forward(torch.zeros(1)) == 2
    second()
    assert module.forward(torch.zeros(1)) == 1
    first()
    assert module.forward == own
    assert "forward" not in vars(module)


class Wrapper(nn.Module):
    """A model in a model, as peft makes it."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.base_model = model

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.base_model, name)


@pytest.mark.parametrize("first", ["wrapper", "model"])
@pytest.mark.parametrize("goes_first", [0, 1])
def test_a_wrapper_and_its_model_share_an_attachment(first: str, goes_first: int) -> None:
    model = tiny_llama.__wrapped__()
    before = [sorted(vars(module)) for module in model.modules()]
    wrapper: Any = Wrapper(model)
    given = [wrapper, model] if first == "wrapper" else [model, wrapper]
    attachments = [attachment_of(each) for each in given]
    assert attachments[0] is attachments[1]
    for attachment in attachments:
        attachment.acquire()
    attachments[goes_first].release()
    assert [sorted(vars(module)) for module in model.modules()] != before
    attachments[1 - goes_first].release()
    assert [sorted(vars(module)) for module in model.modules()] == before


@pytest.mark.parametrize("goes_first", [0, 1])
def test_models_that_share_a_decoder_share_an_attachment(goes_first: int) -> None:
    one, other = tiny_llama.__wrapped__(), tiny_llama.__wrapped__()
    other.model = one.model
    ids = random_ids(1, 20)
    caches = [SinkCache(one, 2, 8), SinkCache(other, 2, 8)]
    caches[goes_first].disable()
    left, model = caches[1 - goes_first], [one, other][1 - goes_first]
    with torch.no_grad():
        logits = model(ids, past_key_values=left).logits
        whole: Any = model
        written = whole.generate(ids, past_key_values=SinkCache(model, 2, 8), max_new_tokens=3)
        left.disable()
        with SinkCache(one, 2, 8) as fresh:
            torch.testing.assert_close(one(ids, past_key_values=fresh).logits, logits)
    assert written.shape == (1, 23)
    gc.collect()
    for each in (one, other):
        assert "prepare_inputs_for_generation" not in vars(each)
        assert not any("forward" in vars(module) for module in each.modules())
