"""The cache folder: models, kernels and compiled steps are kept in one place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from platformdirs import user_cache_path

_chosen: list[Path] = []


def cache_folder(folder: str | Path | None = None) -> Path:
    """Return the folder in which this library keeps files for later.

    Args:
        folder: a choice for one call, which comes before all others.

    Returns:
        `folder`, else that of the innermost `using_cache_folder`, else the user's cache folder on
        this system. It need not exist.
    """
    if folder is not None:
        return Path(folder).expanduser()
    return _chosen[-1] if _chosen else user_cache_path("streamingllm")


@contextmanager
def using_cache_folder(folder: str | Path) -> Iterator[None]:
    """Keep models, kernels and compiled steps in `folder` while the body runs, in all threads."""
    _chosen.append(Path(folder).expanduser())
    try:
        yield
    finally:
        _chosen.pop()
