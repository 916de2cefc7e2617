"""Data files: one JSON object per line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from streamingllm.errors import InputError


def read_jsonl(path: Path, fields: Sequence[str], max_rows: int | None = None) -> list[Any]:
    """Read objects that all have the given fields.

    Args:
        path: a UTF-8 file with one JSON object per line.
        fields: names that each object must have.
        max_rows: read no more; None reads all.

    Raises:
        InputError: the file cannot be read, is empty, or a line has another form.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"data={str(path)!r} cannot be read; choose a file of JSON lines"
        ) from error
    rows = []
    for number, line in enumerate(lines[:max_rows], start=1):
        try:
            row = json.loads(line)
            missing = [name for name in fields if name not in row]
        except (ValueError, TypeError) as error:
            raise InputError(f"data={str(path)!r} has no JSON in line {number}") from error
        if missing:
            raise InputError(
                f"data={str(path)!r} lacks {', '.join(missing)} in line {number}; give objects "
                f"with {', '.join(fields)}"
            )
        rows.append(row)
    if not rows:
        raise InputError(f"data={str(path)!r} is empty; choose a file with at least one line")
    return rows
