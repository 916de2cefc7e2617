from __future__ import annotations

import math

import numpy as np
import pytest

from streamingllm.evaluation.bootstrap import NUM_RESAMPLES, estimate, paired_difference, sums_of


def plain_bootstrap(clusters: list[tuple[float, float]], draws: int) -> list[float]:
    """Ratios of resamples drawn one by one, by another generator."""
    choose = np.random.default_rng(99)
    found = []
    for _ in range(draws):
        drawn = [clusters[i] for i in choose.integers(len(clusters), size=len(clusters))]
        found.append(sum(a for a, _ in drawn) / sum(b for _, b in drawn))
    return found


def test_the_interval_is_that_of_a_plain_bootstrap() -> None:
    choose = np.random.default_rng(1)
    clusters = [(float(a), float(b)) for a, b in choose.uniform(1, 5, (40, 2))]
    found = estimate(sums_of(clusters), seed=0)
    assert found.value == pytest.approx(sum(a for a, _ in clusters) / sum(b for _, b in clusters))
    low, high = np.quantile(plain_bootstrap(clusters, 20_000), (0.025, 0.975))
    width = high - low
    assert found.low == pytest.approx(low, abs=0.1 * width)
    assert found.high == pytest.approx(high, abs=0.1 * width)
    assert found.num_clusters == 40


def test_an_interval_is_fixed_by_its_seed() -> None:
    sums = sums_of([(float(a), 1.0) for a in np.random.default_rng(0).normal(size=30)])
    assert estimate(sums, seed=3) == estimate(sums, seed=3)
    assert estimate(sums, seed=3) != estimate(sums, seed=4)


def test_an_exponential_is_of_the_mean() -> None:
    found = estimate(sums_of([(2.0, 2.0), (4.0, 1.0)]), seed=0, is_exponential=True)
    assert found.value == pytest.approx(math.exp(2.0))
    assert found.low == pytest.approx(math.exp(1.0))
    assert found.high == pytest.approx(math.exp(4.0))


def test_a_constant_difference_has_no_width() -> None:
    first = sums_of([(float(i), 1.0) for i in range(20)])
    second = first + np.array([0.5, 0.0])
    found = paired_difference(first, second, seed=0)
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.5, 0.5))
    apart = estimate(second, seed=0)
    assert apart.high - apart.low > 1


def test_one_cluster_or_none_that_counts_has_no_interval() -> None:
    one = estimate(sums_of([(1.0, 2.0)]), seed=0)
    assert (one.value, one.num_clusters) == (0.5, 1)
    assert math.isnan(one.low)
    assert math.isnan(estimate(sums_of([(0.0, 0.0), (0.0, 0.0)]), seed=0).value)
    # Resamples without a cluster that counts are left out.
    some = estimate(sums_of([(1.0, 1.0), (0.0, 0.0)]), seed=0)
    assert (some.low, some.high) == (1.0, 1.0)
    assert NUM_RESAMPLES >= 1000
