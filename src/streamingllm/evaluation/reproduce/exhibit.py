"""An exhibit: a table or figure of the paper, made again, with its claims checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from streamingllm.evaluation.bootstrap import Estimate

if TYPE_CHECKING:
    from streamingllm.evaluation.reproduce.context import Context


@dataclass(frozen=True)
class PrintedTable:
    """A table as the paper prints it.

    Args:
        columns: their names.
        rows: a number for each column, by name of the row.
    """

    columns: Sequence[str]
    rows: Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Claim:
    """Hold a statement of the paper about an exhibit, checked on what was measured here.

    Args:
        text: the statement.
        holds: None if nothing was measured that decides it.
        evidence: the numbers that decide.
    """

    text: str
    holds: bool | None
    evidence: str


@dataclass(frozen=True)
class Exhibit:
    """Our table next to the paper's.

    Args:
        columns: names of our columns.
        rows: an estimate for each column, None where nothing was measured; by name of the row.
        printed: the paper's table; None for a figure without printed numbers.
        setup: data, sizes and scores, in a sentence or two.
        claims: of the paper.
        reports: of the evaluations that the table stands on, by name.
        plot: a PNG image.
    """

    columns: Sequence[str]
    rows: Mapping[str, Sequence[Estimate | None]]
    printed: PrintedTable | None
    setup: str
    claims: Sequence[Claim] = ()
    reports: Mapping[str, Any] = field(default_factory=dict)
    plot: bytes | None = None


@dataclass(frozen=True)
class ExhibitPlan:
    """Name, title and maker of an exhibit.

    Args:
        name: on the command line, such as `table-1`.
        title: in the report.
        make: measures.
        data: names of files that `make` needs in the data folder.
    """

    name: str
    title: str
    make: Callable[[Context], Exhibit]
    data: Sequence[str] = ()


def lower(text: str, difference: Estimate) -> Claim:
    """Return a claim that holds if a difference lies below zero with its whole interval."""
    return Claim(text, difference.high < 0, f"difference {as_text(difference)}")


def higher(text: str, difference: Estimate) -> Claim:
    """Return a claim that holds if a difference lies above zero with its whole interval."""
    return Claim(text, difference.low > 0, f"difference {as_text(difference)}")


def close(text: str, difference: Estimate, margin: float) -> Claim:
    """Return a claim that holds if a difference lies within a margin with its whole interval."""
    holds = -margin < difference.low and difference.high < margin
    return Claim(text, holds, f"difference {as_text(difference)}, margin {margin:.3g}")


def as_text(estimate: Estimate) -> str:
    """Write an estimate with its interval."""
    if estimate.low != estimate.low:  # NaN
        return f"{estimate.value:.4g}"
    return f"{estimate.value:.4g} [{estimate.low:.4g}, {estimate.high:.4g}]"
