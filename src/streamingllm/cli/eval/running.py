"""Run an evaluation with progress, and write its report."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from streamingllm.cli.eval.command import BuildTask, RunOptions
from streamingllm.cli.files import write_whole
from streamingllm.cli.loading import load_shown, use_threads
from streamingllm.cli.output import human_console, write_json
from streamingllm.cli.run_record import package_version, run_record
from streamingllm.cli.strategies import reported_settings
from streamingllm.evaluation.evaluation import Evaluation, evaluate
from streamingllm.evaluation.records import Records

if TYPE_CHECKING:
    from streamingllm.evaluation.caches import CacheChoice
    from streamingllm.evaluation.tasks.base import Job, Task
    from streamingllm.models import LanguageModel

_PLAIN_INTERVAL_SECONDS = 20.0


def run_evaluation(build: BuildTask, options: RunOptions) -> None:
    """Load the model, run its task and write the report."""
    use_threads(options.threads)
    lm = load_shown(
        options.model,
        dtype=options.dtype,
        device=options.device,
        cache_dir=options.cache_dir,
        quantize=options.quantize,
    )
    task = build(lm)
    config = described(lm, task, options.caches)
    records = Records(options.resume, {**config, "version": package_version("streamingllm")})
    started = time.perf_counter()
    with shown_progress(task, options.caches) as on_part:
        evaluation = evaluate(task, lm, options.caches, records=records, on_part=on_part)
    seconds = time.perf_counter() - started
    print_evaluation(human_console(options.json), evaluation, options.seed)
    if options.plot is not None:
        from streamingllm.evaluation.score_plot import plot_scores

        write_whole("plot", options.plot, plot_scores(evaluation))
    if options.json is not None:
        report = {
            **evaluation.report(options.seed),
            "samples": evaluation.details(),
            "seconds": seconds,
            "config": config,
            **run_record(options.seed),
        }
        write_json(options.json, report)


def described(lm: LanguageModel, task: Task, caches: Sequence[CacheChoice]) -> dict[str, Any]:
    """Return what the scores of a run depend on."""
    return {
        "model": lm.name,
        "source": lm.source,
        "quantize": lm.quantization,
        "dtype": str(lm.model.dtype).removeprefix("torch."),
        "device": str(lm.model.device),
        "task": task.name,
        "task_settings": task.settings(),
        "caches": {cache.label: reported_settings(cache.config) for cache in caches},
    }


class _PartCounter:
    """Count parts and show them: a bar on a terminal, a line every 20 seconds elsewhere."""

    def __init__(self, task: Task, caches: Sequence[CacheChoice], console: Console) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        self._console = console
        self.bars = Progress(
            *columns, console=console, transient=True, disable=not console.is_terminal
        )
        self._starts = dict(zip((c.label for c in caches), range(len(caches)), strict=True))
        parts = [task.num_parts(sample) for sample in range(task.num_samples)]
        self._before = [sum(parts[:sample]) for sample in range(len(parts))]
        self._parts_per_cache = sum(parts)
        self._total = self._parts_per_cache * len(caches)
        self._bar = self.bars.add_task(task.name, total=self._total)
        self._printed_at = time.monotonic()

    def show(self, job: Job) -> None:
        label = job.cache.label
        done = self._starts[label] * self._parts_per_cache
        done += self._before[job.sample] + len(job.parts)
        self.bars.update(self._bar, completed=done, description=label)
        if self._console.is_terminal:
            return
        if time.monotonic() - self._printed_at >= _PLAIN_INTERVAL_SECONDS:
            self._printed_at = time.monotonic()
            self._console.print(f"{label}  {done:,} of {self._total:,}", soft_wrap=True)


@contextmanager
def shown_progress(task: Task, caches: Sequence[CacheChoice]) -> Iterator[Any]:
    """Show how far an evaluation has come while the body runs; yields `on_part`."""
    counter = _PartCounter(task, caches, Console(file=sys.stderr, highlight=False))
    with counter.bars:
        yield counter.show


def shown_parts(console: Console) -> Callable[[Job], None]:
    """Return a function that prints how far a job is, every 20 seconds at most."""
    printed_at = time.monotonic()

    def show(job: Job) -> None:
        nonlocal printed_at
        if time.monotonic() - printed_at >= _PLAIN_INTERVAL_SECONDS:
            printed_at = time.monotonic()
            console.print(
                f"  {job.cache.label}: sample {job.sample}, {len(job.parts)} parts", soft_wrap=True
            )

    return show


def print_evaluation(console: Console, evaluation: Evaluation, seed: int) -> None:
    """Print each metric of each cache with its interval."""
    labels = list(evaluation.samples)
    names = list(dict.fromkeys(name for label in labels for name in evaluation.metrics(label)))
    table = Table(box=None, pad_edge=False)
    table.add_column("metric")
    for label in labels:
        table.add_column(label, justify="right")
    for name in names:
        cells = []
        for label in labels:
            found = evaluation.estimate(label, name, seed)
            cells.append(f"{found.value:.4g} [{found.low:.4g}, {found.high:.4g}]")
        table.add_row(name, *cells)
    console.print(table, soft_wrap=True)
