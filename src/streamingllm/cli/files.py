"""Files that hold results: whole or not there, and asked for a place before the work begins."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from streamingllm.errors import ConfigError


def check_writable(option: str, path: Path | None) -> None:
    """Refuse a place where no file can be written.

    Raises:
        ConfigError: it is a folder, or in none that can be written to.
    """
    if path is not None and (path.is_dir() or not os.access(path.parent, os.W_OK)):
        raise ConfigError(
            f"{option}={str(path)!r} cannot be written; choose a file in a writable folder"
        )


def write_whole(option: str, path: Path, content: bytes) -> None:
    """Write a file, or leave what was there before.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as staging:
            staged = Path(staging) / path.name
            staged.write_bytes(content)
            staged.replace(path)
    except OSError as error:
        raise ConfigError(
            f"{option}={str(path)!r} cannot be written ({error.strerror}); choose another file"
        ) from error
