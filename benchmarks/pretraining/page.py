"""Write the tables of docs/pretraining.md and docs/positions.md from results.

A table stays as it is as long as its results are missing.

python -m benchmarks.pretraining.page
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import typer

from benchmarks.families_page import between_marks

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
_COLUMNS = 4
_CLOSE = 0.01  # nats a byte that do not count
Results = Mapping[str, Any]


def arm_rows(found: Results) -> Iterator[str]:
    """Yield the table of losses, the mean of all seeds and their range."""
    summary = found["summary"]
    columns = list(next(iter(summary.values()))["nll"])
    yield f"| arm | models | within the trained length | {' | '.join(columns)} |"
    yield "|---|---" + "|---" * (_COLUMNS + 1) + "|"
    for arm, row in summary.items():
        count = sum(name.startswith(f"{arm}, seed") for name in found["rows"])
        cells = [row["nll_within_trained_length"], *(row["nll"][column] for column in columns)]
        yield f"| {arm} | {count} | {' | '.join(map(_spread, cells))} |"


def sink_rows(found: Results) -> Iterator[str]:
    """Yield the table of attention to the first token, and of what its eviction costs."""
    yield "| arm | heads with a sink | highest mean attention | 0+W above 4 sinks, per seed |"
    yield "|---|---|---|---|"
    for arm, row in found["summary"].items():
        above = [
            next(iter(found_row["above_last"].values()))
            for name, found_row in found["rows"].items()
            if name.startswith(f"{arm}, seed")
        ]
        cells = (
            _spread(row["sink_rate_of_first"]),
            _spread(row["highest_attention_to_first"]),
            "; ".join(f"{x['value']:+.4f} [{x['low']:+.4f}, {x['high']:+.4f}]" for x in above),
        )
        yield f"| {arm} | {' | '.join(cells)} |"


def claim_rows(found: Results) -> Iterator[str]:
    """Yield the paper's claims, each with how many models show it."""
    claims = (
        ("rope, none", 0, "worse", "without sinks a vanilla model breaks", "27.87 to 18.05"),
        ("rope, none", 1, "worse", "one sink is not enough for it", "18.49 to 18.05"),
        ("rope, softmax1", 0, "worse", "softmax1 does not help without sinks", "29,214 to 18.01"),
        (
            "rope, token",
            0,
            "worse",
            "a trained sink token must not be evicted",
            "1,235 to 18.02",
        ),
        ("rope, token", 1, "equal", "a trained sink token is enough", "18.01 to 18.02"),
    )
    yield "| claim of tables 3 and 10 | paper, that column to 4 sinks | models that show it |"
    yield "|---|---|---|"
    for arm, column, expected, claim, paper in claims:
        rows = [row for name, row in found["rows"].items() if name.startswith(f"{arm}, seed")]
        if not rows:
            continue
        above = [list(row["above_last"].values())[column] for row in rows]
        shown = sum(
            x["low"] > 0 if expected == "worse" else x["low"] > -_CLOSE and x["high"] < _CLOSE
            for x in above
        )
        yield f"| {claim} | {paper} | {shown} of {len(above)} |"


def position_rows(found: Results) -> Iterator[str]:
    """Yield the loss of each encoding by cache positions, text positions and re-computation."""
    ways = ("cache", "text", "window only", "recompute")
    yield f"| encoding, seed | {' | '.join(ways)} | text less cache |"
    yield "|---|---|---|---|---|---|"
    for name, row in found["rows"].items():
        nll = [f"{row['nll'][way]['value']:.3f}" if way in row["nll"] else "none" for way in ways]
        apart = row["differences"].get("text less cache")
        interval = "none"
        if apart is not None:
            interval = f"{apart['value']:+.3f} [{apart['low']:+.3f}, {apart['high']:+.3f}]"
        yield f"| {name} | {' | '.join(nll)} | {interval} |"


def _spread(values: Mapping[str, float]) -> str:
    return f"{values['mean']:.3f} ({values['low']:.3f} to {values['high']:.3f})"


def main() -> None:
    """Write the tables whose results are there."""
    tables = {
        "pretraining": {"losses": arm_rows, "sinks": sink_rows, "claims": claim_rows},
        "positions": {"measured": position_rows},
    }
    for name, rows_of in tables.items():
        results, page = RESULTS / f"{name}.json", ROOT / "docs" / f"{name}.md"
        if results.is_file():
            found = json.loads(results.read_text())
            rows = {table: make(found) for table, make in rows_of.items()}
            page.write_text(between_marks(page.read_text(), rows, page.name))


if __name__ == "__main__":
    typer.run(main)
