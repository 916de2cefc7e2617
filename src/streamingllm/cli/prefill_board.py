"""Show how far readings of a text have come."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from streamingllm.evaluation import Reading

_PLAIN_INTERVAL_SECONDS = 20.0


class ReadingBoard:
    """One line per reading, kept fresh on a terminal, printed now and then elsewhere.

    Args:
        console: where to show it.
        readings: by label; all of the same text.
    """

    def __init__(self, console: Console, readings: Mapping[str, Reading]) -> None:
        self._console = console
        self._readings = readings
        self._live = Live(console=console, get_renderable=self._table, refresh_per_second=4)
        self._printed_at = time.monotonic()

    def __enter__(self) -> ReadingBoard:
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
        """Print where the readings stand, if it is time and no terminal redraws itself."""
        finished = all(reading.done for reading in self._readings.values())
        waited = time.monotonic() - self._printed_at >= _PLAIN_INTERVAL_SECONDS
        if self._console.is_terminal or not (waited or finished):
            return
        self._printed_at = time.monotonic()
        for label, reading in self._readings.items():
            self._console.print("  ".join((f"{label:<13}", *_cells(reading))), soft_wrap=True)

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 2))
        for label, reading in self._readings.items():
            bar = ProgressBar(total=reading.tokens, completed=reading.tokens_read, width=16)
            table.add_row(label, bar, *_cells(reading))
        return table


def _cells(reading: Reading) -> tuple[str, ...]:
    return (
        f"{reading.tokens_read:>9,} tokens",
        f"perplexity {format_perplexity(reading.running_perplexity):>7}",
        f"{reading.tokens_per_second:>5,.0f} tokens/s",
        f"{reading.stream.nbytes / 1e6:>7,.1f} MB",
    )


def format_perplexity(perplexity: float) -> str:
    """Write a perplexity in at most seven characters, a dash where there is none yet."""
    if math.isnan(perplexity):
        return "-"
    return f"{perplexity:.1f}" if perplexity < 99_999 else f"{perplexity:.0e}"
