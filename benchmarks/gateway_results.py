"""Results of several servers behind a gateway, and sums of what they counted.

It needs nothing of this project, as `gateway_turns`, which runs elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

WARMING = 1
"""Tokens of an answer that nobody reads: its request warms a rollover."""


def answered(asked: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the requests that a server did not refuse, and whose answers have ended."""
    return [one for one in asked if one.get("status") == 200]


def prefilled(usages: Sequence[dict[str, Any] | None]) -> int | None:
    """Return the tokens that a server read; None if it does not say which it had cached."""
    if not usages:
        return None
    return total(
        usage["prompt_tokens"] - usage["prompt_tokens_details"]["cached_tokens"]
        if usage and (usage.get("prompt_tokens_details") or {}).get("cached_tokens") is not None
        else None
        for usage in usages
    )


def total(counts: Iterable[int | None]) -> int | None:
    """Return the sum of counts; None if one is missing."""
    known = [*counts]
    return None if None in known else sum(count for count in known if count is not None)


def most(counts: Iterable[int | None]) -> int | None:
    """Return the largest of the counts that are known."""
    return max((count for count in counts if count is not None), default=None)


def write_under(path: Path, name: str, found: dict[str, Any]) -> None:
    """Replace the results of one server in a file; those of others stay."""
    others = json.loads(path.read_text()) if path.is_file() else {}
    merged = {**others, name: {**others.get(name, {}), **found}}
    path.write_text(json.dumps(merged, indent=2) + "\n")
