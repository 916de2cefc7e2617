"""Show how far strategies have come with a text."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

if TYPE_CHECKING:
    from streamingllm.evaluation import PerplexityRun

_PLAIN_INTERVAL_SECONDS = 20.0


class ProgressBoard:
    """Show one line per run: redrawn on a terminal, printed every 20 seconds elsewhere.

    Args:
        console: where to show it.
        runs: by label; all of the same text.
    """

    def __init__(self, console: Console, runs: Mapping[str, PerplexityRun]) -> None:
        self._console = console
        self._runs = runs
        self._live = Live(console=console, get_renderable=self._table, refresh_per_second=4)
        self._printed_at = time.monotonic()

    def __enter__(self) -> ProgressBoard:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def update(self) -> None:
        """Print how far the runs are, if it is time and no terminal redraws itself."""
        finished = all(run.is_done for run in self._runs.values())
        waited = time.monotonic() - self._printed_at >= _PLAIN_INTERVAL_SECONDS
        if self._console.is_terminal or not (waited or finished):
            return
        self._printed_at = time.monotonic()
        for label, run in self._runs.items():
            self._console.print("  ".join((f"{label:<13}", *_cells(run))), soft_wrap=True)

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 2))
        for label, run in self._runs.items():
            bar = ProgressBar(total=run.num_tokens, completed=run.num_prefilled_tokens, width=16)
            table.add_row(label, bar, *_cells(run))
        return table


def _cells(run: PerplexityRun) -> tuple[str, ...]:
    return (
        f"{run.num_prefilled_tokens:>9,} tokens",
        f"perplexity {format_perplexity(run.running_perplexity):>7}",
        f"{run.tokens_per_second:>5,.0f} tokens/s",
        f"{run.stream.nbytes / 1e6:>7,.1f} MB",
    )


def format_perplexity(perplexity: float) -> str:
    """Write a perplexity in at most seven characters, a dash where there is none yet."""
    if math.isnan(perplexity):
        return "-"
    return f"{perplexity:.1f}" if perplexity < 99_999 else f"{perplexity:.0e}"
