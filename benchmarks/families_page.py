"""Write the tables of docs/families.md from the results of `families` and `sweep`.

Refusals are those of `tests/sweep/reviewed.py`, which the sweep holds true. Measured tables stay as
they are as long as there are no results of the sweep.

python -m benchmarks.families_page
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from tests.sweep.reviewed import NOT_BUILT, REFUSED, REFUSED_VARIANTS

ROOT = Path(__file__).parents[1]
PAGE, RESULTS = ROOT / "docs" / "families.md", ROOT / "benchmarks" / "results"
VERDICTS = ("streams", "refused", "is wrong", "fails", "not built")
GROUPS = {
    "causal": "causal classes",
    "multimodal": "classes of pictures and text, their text side",
    "variants": "further members of these families",
}
Results = Mapping[str, Any]


def page(text: str) -> str:
    """Return the page with what lies between the marks of each table made anew."""
    tables = {
        "oracles": oracle_rows(read("families.json")["largest_logit_difference"]),
        "refused": refused_rows(),
        "not built": not_built_rows(),
    }
    if (RESULTS / "sweep.json").is_file():
        sweep, before = read("sweep.json"), read("sweep-before.json")
        tables["counts"] = count_rows(before["counts"], sweep["counts"])
        tables["streams"] = stream_rows(sweep["families"])
    return between_marks(text, tables, "families.md")


def between_marks(text: str, tables: Mapping[str, Iterable[str]], page_name: str) -> str:
    """Return a page whose tables, each between two marks, are made of other rows.

    Args:
        text: of the page.
        tables: rows by the name in the marks.
        page_name: for the error.
    """
    for name, rows in tables.items():
        begin, end = f"<!-- begin {name} -->\n", f"<!-- end {name} -->"
        if text.count(begin) != 1 or text.count(end) != 1:
            raise ValueError(f"docs/{page_name} has not one pair of marks for {name!r}")
        head, rest = text.split(begin)
        text = head + begin + "\n".join(rows) + "\n" + end + rest.split(end)[1]
    return text


def read(name: str) -> dict[str, Any]:
    """Return the results of a benchmark."""
    results: dict[str, Any] = json.loads((RESULTS / name).read_text())
    return results


def oracle_rows(apart: Results) -> Iterator[str]:
    """Yield the differences from the two oracles with stated facts."""
    yield "| test name | float64 | float32 |"
    yield "|---|---|---|"
    for name, found in apart.items():
        yield f"| `{name}` | {found['float64']:.1e} | {found['float32']:.1e} |"


def count_rows(before: Results, after: Results) -> Iterator[str]:
    """Yield how many families have each verdict, before and after."""
    yield f"| before -> after | {' | '.join(VERDICTS)} |"
    yield "|---" * (len(VERDICTS) + 1) + "|"
    for group, title in GROUPS.items():
        pairs = (f"{before[group].get(v, 0)} -> {after[group].get(v, 0)}" for v in VERDICTS)
        yield f"| {title} | {' | '.join(pairs)} |"


def stream_rows(families: Results) -> Iterator[str]:
    """Yield the differences of each family that streams."""
    yield "| family | float64 | float32, token by token |"
    yield "|---|---|---|"
    for name, found in sorted(families.items()):
        if found["verdict"] == "streams":
            apart = dict(found["largest_logit_difference"])
            steps = apart.pop("steps")
            yield f"| `{name}` | {max(apart.values()):.0e} | {steps:.0e} |"


def refused_rows() -> Iterator[str]:
    """Yield the reasons of refusals, each with the families that it refuses."""
    yield "| reason | families |"
    yield "|---|---|"
    families = {reason: names.split() for reason, names in REFUSED.items()}
    for name, reason in REFUSED_VARIANTS.items():
        families.setdefault(reason, []).append(name)
    for reason, names in families.items():
        yield f"| {reason} | {'; '.join(sorted(names))} |"


def not_built_rows() -> Iterator[str]:
    """Yield the families that the sweep does not build, each with the reason."""
    yield "| family | reason |"
    yield "|---|---|"
    for name, reason in NOT_BUILT.items():
        yield f"| {name} | {reason} |"


def main(
    check: Annotated[bool, typer.Option(help="Write nothing; fail if it is old.")] = False,
) -> None:
    """Write docs/families.md.

    Example: python -m benchmarks.families_page --check
    """
    text = PAGE.read_text()
    made = page(text)
    if check and made != text:
        raise typer.Exit(1)
    if not check:
        PAGE.write_text(made)


if __name__ == "__main__":
    typer.run(main)
