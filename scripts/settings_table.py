"""Write the table of settings in docs/server.md from the settings classes.

Run: `python scripts/settings_table.py [--check]`
With --check nothing is written, and the exit code tells whether the page is current.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import Field
from itertools import groupby
from pathlib import Path
from typing import Any

from streamingllm.server.setting_fields import choices_of, default_of, example_of, facts_of
from streamingllm.server.settings import setting_fields

PAGE = Path(__file__).parents[1] / "docs" / "server.md"
BEGIN = "<!-- settings: written by scripts/settings_table.py -->"
END = "<!-- end of settings -->"


def table() -> str:
    """Return the settings in Markdown, one table for each group."""
    parts = []
    for group, found in groupby(setting_fields(), lambda setting: facts_of(setting).group):
        rows = [f"| {group} | default | meaning | example |", "|---|---|---|---|"]
        for setting in found:
            text = f"{facts_of(setting).text}{choices_of(setting)}"
            rows.append(
                f"| `{setting.name}` | {_default(setting)} | {text} | `{example_of(setting)}` |"
            )
        parts.append("\n".join(rows))
    return "\n\n".join(parts)


def with_table(page: str) -> str:
    """Return a page with the table between its marks.

    Raises:
        ValueError: the page has no marks.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(
            f"the page has no {BEGIN if not begin else END}; put it where the table is"
        )
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page, or check it."""
    parser = argparse.ArgumentParser(
        description="Write the table of settings.",
        epilog="Example: python scripts/settings_table.py --check",
    )
    parser.add_argument("--check", action="store_true", help="Write nothing.")
    check = parser.parse_args(arguments).check
    page = PAGE.read_text(encoding="utf-8")
    wanted = with_table(page)
    if check:
        return int(page != wanted)
    PAGE.write_text(wanted, encoding="utf-8")
    return 0


def _default(setting: Field[Any]) -> str:
    """Return the default with its unit, which a size or a text has already."""
    facts, default = facts_of(setting), default_of(setting)
    has_unit = not default or facts.default_text or facts.kind == "bytes"
    return default if has_unit else f"{default} {facts.unit}".strip()


if __name__ == "__main__":
    sys.exit(main())
