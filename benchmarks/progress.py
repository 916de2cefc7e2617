"""Progress of long runs, on standard error so that results can be piped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import track

Item = TypeVar("Item")


def shown(
    items: Sequence[Item] | Iterable[Item], description: str, total: int | None = None
) -> Iterable[Item]:
    """Yield `items` under a progress bar."""
    return track(items, description=description, total=total, console=Console(stderr=True))
