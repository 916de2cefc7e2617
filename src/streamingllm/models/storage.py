"""The cache folder: whole files or none, one writer at a time."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from streamingllm.errors import ModelLoadError

_STAGING_PREFIX = "partial-"


@contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """Own `folder` for the body: other processes wait, and what killed ones left is removed.

    Raises:
        ModelLoadError: the folder cannot be written to, or the disk is full.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            for leftover in folder.glob(_STAGING_PREFIX + "*"):
                shutil.rmtree(leftover)
            yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise ModelLoadError(
            f"cache_dir={str(folder)!r} cannot be written ({reason}); choose a writable folder "
            "with enough space"
        ) from error


@contextmanager
def staging_folder(home: Path) -> Iterator[Path]:
    """Make a folder on the file system of `home` for half-done work; it goes when the body ends."""
    with tempfile.TemporaryDirectory(prefix=_STAGING_PREFIX, dir=home) as name:
        yield Path(name)


def replace_folder(source: Path, target: Path) -> None:
    """Rename folder `source` to `target`, whose former content is dropped."""
    if target.exists():
        shutil.rmtree(target)
    source.replace(target)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 checksum of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def has_checksum(path: Path, sha256: str) -> bool:
    """Tell whether `path` is a file with this checksum."""
    return path.is_file() and sha256_of(path) == sha256
