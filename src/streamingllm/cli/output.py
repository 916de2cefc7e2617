"""Write results for people, and as JSON for programs."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from streamingllm.cli.files import check_writable, write_whole

_STANDARD_OUTPUT = "-"


def _check_json_target(target: str | None) -> str | None:
    # Asked before the work begins: hours of results deserve a place to go.
    if target is not None and target != _STANDARD_OUTPUT:
        check_writable("json", Path(target))
    return target


JsonOption = Annotated[
    str | None,
    typer.Option(
        "--json",
        metavar="FILE",
        callback=_check_json_target,
        help="Write the results to FILE as JSON; `-` is standard output.",
    ),
]


def human_console(json_target: str | None) -> Console:
    """Return where people read: standard output, or standard error if JSON has taken the former."""
    stream = sys.stderr if json_target == _STANDARD_OUTPUT else sys.stdout
    return Console(file=stream, markup=False, highlight=False)


def write_json(target: str, payload: Mapping[str, Any]) -> None:
    """Write one JSON object to a file, whole or not at all, or to standard output.

    Args:
        target: a path, or `-` for standard output.
        payload: infinite or undefined numbers become null, because JSON has none.

    Raises:
        ConfigError: the file cannot be written.
    """
    text = json.dumps(_without_non_finite(payload), indent=2, allow_nan=False) + "\n"
    if target == _STANDARD_OUTPUT:
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    write_whole("json", Path(target), text.encode())


def _without_non_finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_non_finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_non_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
