"""Make a command of a function that builds a task."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamingllm.cli.files import check_writable
from streamingllm.cli.options import (
    CacheDirOption,
    DeviceOption,
    DtypeOption,
    ModelOption,
    QuantizeOption,
    ThreadsOption,
)
from streamingllm.cli.output import JsonOption
from streamingllm.evaluation.caches import CacheChoice, parse_caches
from streamingllm.models import DEFAULT_MODEL

if TYPE_CHECKING:
    from streamingllm.evaluation.tasks.base import Task
    from streamingllm.models import LanguageModel

DEFAULT_CACHE = "4+1020"
CacheOption = Annotated[
    list[str],
    typer.Option(
        "--cache",
        metavar="CACHE",
        help="N+M, window:M, dense, recompute:M, interpolation:FACTOR, fresh:TOKENS, or a baseline "
        "such as random:N+M; may be given several times.",
    ),
]
ResumeOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.jsonl", help="Keep what is done in FILE, and go on from there next time."
    ),
]
PlotOption = Annotated[
    Path | None, typer.Option(metavar="FILE.png", help="Draw the scores along the samples.")
]
BootstrapSeedOption = Annotated[
    int, typer.Option("--seed", help="Seed of generated texts and of the intervals.")
]
DataOption = Annotated[
    Path, typer.Option("--data", metavar="FILE.jsonl", help="The data set, as JSON lines.")
]
TemplateOption = Annotated[
    str, typer.Option("--template", help="`raw` text, or `chat` with the model's template.")
]


@dataclass(frozen=True)
class RunOptions:
    """Options that all evaluations share."""

    model: str
    caches: list[CacheChoice]
    quantize: str
    dtype: str
    device: str
    threads: int | None
    seed: int
    resume: Path | None
    plot: Path | None
    cache_dir: Path | None
    json: str | None


BuildTask = Callable[["LanguageModel"], "Task"]


def eval_command(build: Callable[..., BuildTask]) -> Callable[..., None]:
    """Return a command with the options of `build` and those of every evaluation.

    Args:
        build: checks its options and returns the function that makes the task of a loaded model.
            It gets the seed as well where it has a parameter of that name.
    """
    own = inspect.signature(build, eval_str=True).parameters
    shared = inspect.signature(_run, eval_str=True).parameters

    def command(**options: Any) -> None:
        common = {name: value for name, value in options.items() if name in shared}
        _run(build(**{name: options[name] for name in own}), **common)

    added = [p for name, p in shared.items() if name not in ("build", *own)]
    signature = inspect.Signature([*own.values(), *added])
    command.__signature__ = signature  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
    command.__doc__ = build.__doc__
    return command


def _run(
    build: BuildTask,
    model: ModelOption = DEFAULT_MODEL,
    cache: CacheOption = [DEFAULT_CACHE],  # noqa: B006 - typer copies it
    quantize: QuantizeOption = "auto",
    dtype: DtypeOption = "auto",
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    seed: BootstrapSeedOption = 0,
    resume: ResumeOption = None,
    plot: PlotOption = None,
    cache_dir: CacheDirOption = None,
    json: JsonOption = None,
) -> None:
    caches = parse_caches(cache)
    check_writable("resume", resume)
    check_writable("plot", plot)
    options = RunOptions(
        model, caches, quantize, dtype, device, threads, seed, resume, plot, cache_dir, json
    )
    from streamingllm.cli.eval.running import run_evaluation

    run_evaluation(build, options)
