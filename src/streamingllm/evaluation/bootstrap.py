"""Bootstrap intervals of ratios of sums, and of paired differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

NUM_RESAMPLES = 2000
LEVEL = 0.95

Sums = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A value with its interval; the bounds are NaN where nothing can be resampled.

    Args:
        value: of all clusters.
        low: lower bound of the interval.
        high: upper bound of the interval.
        num_clusters: clusters that were resampled.
    """

    value: float
    low: float
    high: float
    num_clusters: int

    def to_json(self) -> dict[str, Any]:
        """Return the fields for a report."""
        return {
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "num_clusters": self.num_clusters,
        }


def sums_of(clusters: Sequence[tuple[float, float]]) -> Sums:
    """Return (sum, count) of clusters as an array, float64, [clusters, 2]."""
    return np.array(clusters, dtype=np.float64).reshape(-1, 2)


def estimate(sums: Sums, *, seed: int, is_exponential: bool = False) -> Estimate:
    """Estimate a ratio of sums with a percentile interval.

    Args:
        sums: (sum, count) of each cluster, [clusters, 2].
        seed: of the resampling.
        is_exponential: the exponential of the ratio is wanted, as for perplexity.

    Source: Efron, "Bootstrap methods: another look at the jackknife", 1979.
    """
    value = _ratio(sums.sum(axis=0)[None], is_exponential)[0]
    return _with_interval(float(value), _resampled(sums, seed, is_exponential), len(sums))


def paired_difference(
    first: Sums, second: Sums, *, seed: int, is_exponential: bool = False
) -> Estimate:
    """Estimate how far the second ratio lies above the first, over the same clusters.

    Args:
        first: (sum, count) of each cluster, [clusters, 2].
        second: of the same clusters in the same order.
        seed: of the resampling; both are resampled alike.
        is_exponential: see `estimate`.
    """
    totals = [_ratio(sums.sum(axis=0)[None], is_exponential)[0] for sums in (first, second)]
    draws = [_resampled(sums, seed, is_exponential) for sums in (first, second)]
    return _with_interval(float(totals[1] - totals[0]), draws[1] - draws[0], len(first))


def _resampled(sums: Sums, seed: int, is_exponential: bool) -> NDArray[np.float64]:
    """Return the ratio of each resample, [resamples]; empty with fewer than two clusters."""
    k = len(sums)
    if k < 2:
        return np.empty(0)
    weights = np.random.default_rng(seed).multinomial(k, np.full(k, 1 / k), size=NUM_RESAMPLES)
    return _ratio(weights @ sums, is_exponential)


def _ratio(totals: Sums, is_exponential: bool) -> NDArray[np.float64]:
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ratio: NDArray[np.float64] = totals[:, 0] / totals[:, 1]
        return np.exp(ratio) if is_exponential else ratio


def _with_interval(value: float, draws: NDArray[np.float64], num_clusters: int) -> Estimate:
    draws = draws[np.isfinite(draws)]  # a resample may hold no cluster that counts
    if not len(draws):
        return Estimate(value, float("nan"), float("nan"), num_clusters)
    low, high = np.quantile(draws, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return Estimate(value, float(low), float(high), num_clusters)
