from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from streamingllm.config import STRATEGIES, StreamConfig
from streamingllm.errors import ConfigError, InputError
from streamingllm.evaluation import PerplexityResult, PerplexityRun, measure_perplexity
from streamingllm.evaluation.perplexity import perplexity_of, token_nll
from streamingllm.positions.tables import rotary_modules
from streamingllm.stream import Stream
from tests.reference.tiny_llama import random_ids, tiny_llama

NUM_TOKENS = 70
WINDOW = 12


@pytest.fixture(scope="module")
def ids() -> Tensor:
    return random_ids(NUM_TOKENS)


def config(strategy: str, chunk_size: int = 16, **fields: float) -> StreamConfig:
    sinks = 2 if strategy == "sinks" else 0
    return StreamConfig(sinks, WINDOW, strategy=strategy, chunk_size=chunk_size, **fields)


def minus_log(logits: Tensor, target: Tensor) -> float:
    """Minus the logarithm of a softmax, from its definition."""
    p = np.exp(logits.double().numpy())
    return -math.log(p[int(target)] / p.sum())


def plain_logits(model: LlamaForCausalLM, ids: Tensor) -> Tensor:
    """The model by itself, with no cache and nothing of ours."""
    with torch.no_grad():
        logits: Tensor = model(input_ids=ids[None], use_cache=False).logits[0]
    return logits


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_nll_equals_feeding_token_by_token(strategy: str, ids: Tensor) -> None:
    stream = Stream(tiny_llama(), config(strategy, interpolation_factor=2.0))
    expected = [
        minus_log(stream.feed(ids[t : t + 1])[0], ids[t + 1]) for t in range(NUM_TOKENS - 1)
    ]
    result = measure_perplexity(tiny_llama(), ids, config(strategy, interpolation_factor=2.0))
    np.testing.assert_allclose(result.nll, expected, rtol=1e-5)
    assert result.nll.dtype == np.float32


def test_dense_equals_the_model_by_itself(ids: Tensor) -> None:
    logits = plain_logits(tiny_llama(), ids)
    expected = [minus_log(logits[t], ids[t + 1]) for t in range(NUM_TOKENS - 1)]
    result = measure_perplexity(tiny_llama(), ids, config("dense"))
    np.testing.assert_allclose(result.nll, expected, rtol=1e-5)


def test_recompute_equals_a_loop_over_windows(ids: Tensor) -> None:
    expected = []
    for t in range(NUM_TOKENS - 1):
        window = ids[max(0, t + 1 - WINDOW) : t + 1]
        expected.append(minus_log(plain_logits(tiny_llama(), window)[-1], ids[t + 1]))
    result = measure_perplexity(tiny_llama(), ids, config("recompute"))
    np.testing.assert_allclose(result.nll, expected, rtol=1e-5)


def test_interpolation_equals_a_model_with_slower_angles(ids: Tensor) -> None:
    model, slowed = tiny_llama(), tiny_llama(seed=1)
    slowed.load_state_dict(model.state_dict())
    for module in rotary_modules(slowed):
        module.get_buffer("inv_freq").div_(4)
    before = [module.get_buffer("inv_freq").clone() for module in rotary_modules(model)]
    result = measure_perplexity(model, ids, config("interpolation", interpolation_factor=4.0))
    expected = measure_perplexity(slowed, ids, config("dense"))
    np.testing.assert_allclose(result.nll, expected.nll, rtol=1e-5)
    for module, frequencies in zip(rotary_modules(model), before, strict=True):
        assert torch.equal(module.get_buffer("inv_freq"), frequencies)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("chunk_size", [1, 7, NUM_TOKENS - 1, NUM_TOKENS, 1000])
def test_chunks_do_not_change_the_scores(strategy: str, chunk_size: int, ids: Tensor) -> None:
    expected = measure_perplexity(tiny_llama(), ids, config(strategy))
    result = measure_perplexity(tiny_llama(), ids, config(strategy, chunk_size))
    np.testing.assert_allclose(result.nll, expected.nll, rtol=1e-5)


def test_the_sums_agree_with_each_other(ids: Tensor) -> None:
    result = measure_perplexity(tiny_llama(), ids, config("sinks"), segment_size=16)
    assert result.tokens == NUM_TOKENS
    assert result.perplexity == pytest.approx(math.exp(result.nll.mean(dtype=np.float64)))
    assert len(result.segments) == 5
    predicted = [15, 16, 16, 16, 6]
    mean = sum(n * math.log(s) for n, s in zip(predicted, result.segments, strict=True)) / 69
    assert mean == pytest.approx(math.log(result.perplexity))
    assert result.segments[1] == pytest.approx(math.exp(result.nll[15:31].mean()))
    assert result.tokens_per_second == pytest.approx(NUM_TOKENS / result.seconds)


def test_a_last_segment_of_one_token_counts() -> None:
    result = PerplexityResult(np.log(np.float32([2, 2, 2, 3])), 4, seconds=1.0, cache_bytes=0)
    assert result.segments == pytest.approx((2, 3))


def test_cache_bytes_are_those_of_the_stream(ids: Tensor) -> None:
    result = measure_perplexity(tiny_llama(), ids, config("sinks"))
    assert result.cache_bytes == 2 * 2 * 2 * 8 * (2 + WINDOW) * 8
    assert measure_perplexity(tiny_llama(), ids, config("recompute")).cache_bytes == 0


def test_progress_is_told_after_each_chunk(ids: Tensor) -> None:
    seen = []

    def look(run: PerplexityRun) -> None:
        seen.append((run.num_prefilled_tokens, run.running_perplexity))

    result = measure_perplexity(
        tiny_llama(), ids, config("sinks", 32), segment_size=32, on_progress=look
    )
    assert [tokens for tokens, _ in seen] == [32, 64, 70]
    assert [perplexity for _, perplexity in seen] == pytest.approx(result.segments)


def test_a_run_has_scores_before_its_end(ids: Tensor) -> None:
    run = PerplexityRun(tiny_llama(), ids, config("dense", 10))
    assert math.isnan(run.running_perplexity)
    assert run.tokens_per_second == 0.0
    with pytest.raises(InputError, match="num_prefilled_tokens=0 is less than 2"):
        run.result()
    run.step()
    whole = measure_perplexity(tiny_llama(), ids, config("dense", 10))
    assert not run.is_done
    np.testing.assert_array_equal(run.result().nll, whole.nll[:9])


@pytest.mark.parametrize("shape", [(1,), (0,), (2, 10)])
def test_ids_of_a_wrong_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="give a tensor \\[T\\] of at least 2 tokens"):
        measure_perplexity(tiny_llama(), random_ids(*shape), config("sinks"))


def test_a_segment_of_one_token_is_refused(ids: Tensor) -> None:
    with pytest.raises(ConfigError, match="segment_size=1 is out of range"):
        measure_perplexity(tiny_llama(), ids, config("sinks"), segment_size=1)


@pytest.mark.parametrize(
    ("dtype", "computed", "tolerance"),
    [
        (torch.float64, torch.float64, 1e-12),
        (torch.float32, torch.float32, 1e-5),
        (torch.bfloat16, torch.float32, 1e-5),
    ],
)
def test_scores_are_at_least_single_precision(
    dtype: torch.dtype, computed: torch.dtype, tolerance: float
) -> None:
    logits = torch.randn(37, 61, generator=torch.Generator().manual_seed(0)).to(dtype) * 5
    targets = random_ids(37)
    nll = token_nll(logits, targets)
    assert nll.dtype == computed
    expected = [minus_log(row, target) for row, target in zip(logits, targets, strict=True)]
    np.testing.assert_allclose(nll.numpy(), expected, rtol=tolerance)


def test_perplexities_without_a_number() -> None:
    assert math.isnan(perplexity_of(np.float32([])))
    assert perplexity_of(np.float32([1000.0])) == math.inf
    assert math.isnan(perplexity_of(np.float32([math.nan])))
