"""Run a task under several caches, and sum up with intervals."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from streamingllm.errors import ConfigError
from streamingllm.evaluation.bootstrap import (
    Estimate,
    Sums,
    estimate,
    paired_difference,
    sums_of,
)
from streamingllm.evaluation.caches import CacheChoice
from streamingllm.evaluation.records import Records
from streamingllm.evaluation.tasks.base import Job, Part, Task

if TYPE_CHECKING:
    from streamingllm.models import LanguageModel

# With fewer samples an interval over samples says nothing; parts are resampled instead.
MIN_SAMPLES_TO_RESAMPLE = 10
_SAVE_INTERVAL_SECONDS = 60.0


@dataclass(frozen=True)
class Evaluation:
    """Hold the parts of all samples under each cache.

    Args:
        task: what was run.
        samples: parts of each sample, by label of the cache.
    """

    task: Task
    samples: Mapping[str, Sequence[Sequence[Part]]]

    @property
    def resamples_parts(self) -> bool:
        """Tell whether intervals resample parts, because there are too few samples."""
        return self.task.num_samples < MIN_SAMPLES_TO_RESAMPLE

    def metrics(self, label: str) -> list[str]:
        """Return the names of a cache's metrics."""
        parts = (part for sample in self.samples[label] for part in sample)
        return list(dict.fromkeys(name for part in parts for name in part.totals))

    def estimate(self, label: str, metric: str, seed: int = 0) -> Estimate:
        """Return a metric of one cache with its interval."""
        is_exponential = metric in self.task.exponential
        return estimate(self._sums(label, metric), seed=seed, is_exponential=is_exponential)

    def difference(self, first: str, second: str, metric: str, seed: int = 0) -> Estimate:
        """Return how far the second cache's metric lies above the first's, paired."""
        sums = [self._sums(label, metric) for label in (first, second)]
        is_exponential = metric in self.task.exponential
        return paired_difference(*sums, seed=seed, is_exponential=is_exponential)

    def report(self, seed: int = 0) -> dict[str, Any]:
        """Return all metrics, and each cache's differences from the first."""
        first = next(iter(self.samples))
        names = {label: self.metrics(label) for label in self.samples}
        return {
            "task": self.task.name,
            "task_settings": self.task.settings(),
            "interval": {
                "level": 0.95,
                "resampled": self.task.part_noun if self.resamples_parts else self.task.sample_noun,
            },
            "caches": {
                label: {name: self.estimate(label, name, seed).to_json() for name in names[label]}
                for label in self.samples
            },
            "differences": {
                f"{label} - {first}": {
                    name: self.difference(first, label, name, seed).to_json()
                    for name in names[label]
                    if name in names[first]
                }
                for label in self.samples
                if label != first
            },
        }

    def details(self) -> dict[str, list[list[dict[str, Any]]]]:
        """Return every part, by label of the cache and sample."""
        return {
            label: [[part.to_json() for part in sample] for sample in samples]
            for label, samples in self.samples.items()
        }

    def _sums(self, label: str, metric: str) -> Sums:
        zero = (0.0, 0.0)
        clusters = [
            [part.totals.get(metric, zero) for part in sample] for sample in self.samples[label]
        ]
        if self.resamples_parts:
            return sums_of([pair for sample in clusters for pair in sample])
        return sums_of([(sum(a for a, _ in each), sum(b for _, b in each)) for each in clusters])


def evaluate(
    task: Task,
    lm: LanguageModel,
    caches: Sequence[CacheChoice],
    *,
    records: Records | None = None,
    on_part: Callable[[Job], None] = lambda job: None,
) -> Evaluation:
    """Run a task's samples under each cache, leaving out what `records` holds already.

    Args:
        task: what to run.
        lm: model and tokenizer.
        caches: to compare; the first one is what the others are compared with.
        records: finished samples, which grow; None keeps nothing.
        on_part: called after each part.

    Raises:
        ConfigError: a cache is `fresh` and the task has no questions of their own.
        UnsupportedModelError: the model cannot do what a strategy asks.
    """
    for cache in caches:
        if cache.is_fresh and not task.takes_fresh:
            raise ConfigError(f"cache={cache.label!r}: task {task.name!r} has none; use dense")
    records = records or Records(None, {})
    samples = {
        cache.label: [
            _run_sample(task, lm, cache, sample, records, on_part)
            for sample in range(task.num_samples)
        ]
        for cache in caches
    }
    return Evaluation(task, samples)


def _run_sample(
    task: Task,
    lm: LanguageModel,
    cache: CacheChoice,
    sample: int,
    records: Records,
    on_part: Callable[[Job], None],
) -> list[Part]:
    finished = records.get(cache.label, sample)
    if finished is not None:
        return finished
    parts, stream = records.restore_running(lm, cache.label, sample) or ([], None)
    saved_at = time.monotonic()

    def after_part(job: Job) -> None:
        nonlocal saved_at
        if time.monotonic() - saved_at > _SAVE_INTERVAL_SECONDS:
            records.save_running(job)
            saved_at = time.monotonic()
        on_part(job)

    job = Job(lm, cache, sample, parts=parts, stream=stream, on_part=after_part)
    task.run(job)
    records.put(cache.label, sample, job.parts)
    return job.parts
