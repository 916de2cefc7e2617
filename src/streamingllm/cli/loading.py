"""Load a model and show how far its fetch has come."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn

from streamingllm.checks import check_integer
from streamingllm.cli.environment import configure_kernels

if TYPE_CHECKING:
    from streamingllm.engine import Engine
    from streamingllm.models import LanguageModel
    from streamingllm.models import Progress as ProgressCallback
    from streamingllm.stream import Stream


@contextmanager
def fetch_progress() -> Iterator[ProgressCallback]:
    """Show each stage as a bar on standard error while the body runs, or as a line off a terminal.

    The bars are gone when the body ends.
    """
    console = Console(file=sys.stderr)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    tasks: dict[str, TaskID] = {}
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bars:

        def show(stage: str, done_bytes: int, total_bytes: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total_bytes)
                if not console.is_terminal:
                    console.print(f"{stage} {total_bytes / 1e6:.0f} MB")
            bars.update(tasks[stage], completed=done_bytes)

        yield show


def load_shown(
    model: str, *, dtype: str, device: str, cache_dir: Path | None, quantize: str = "auto"
) -> LanguageModel:
    """Load a model as `load_model` does, with `fetch_progress`, and keep what passes free."""
    configure_kernels()
    from streamingllm.kernels.allocation import keep_freed_memory
    from streamingllm.models import load_model

    gc.enable()  # `main` has switched it off for the imports

    with fetch_progress() as progress:
        lm = load_model(
            model,
            dtype=dtype,
            device=device,
            quantize=quantize,
            cache_dir=cache_dir,
            progress=progress,
        )
    keep_freed_memory()
    return lm


def compile_shown(stream: Stream | Engine) -> bool:
    """Compile the decode step of a stream or an engine and show that this takes a while.

    Tells whether steps run compiled now.
    """
    console = Console(file=sys.stderr)
    with console.status("compiling the decode step, once for this model and machine"):
        return stream.compile(wait=True)


def use_threads(threads: int | None) -> None:
    """Let torch use that many processor threads; None leaves it its own choice.

    Raises:
        ConfigError: `threads` is less than one.
    """
    if threads is None:
        return
    check_integer("threads", threads, 1)
    import torch

    torch.set_num_threads(threads)
