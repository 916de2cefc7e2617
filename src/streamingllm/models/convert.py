"""Convert a packaged GGUF file, once, into a folder that loads fast."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

from streamingllm.models.checkpoint import Checkpoint
from streamingllm.models.failures import failing_as_load_error
from streamingllm.models.progress import Progress
from streamingllm.models.quiet import quiet_libraries
from streamingllm.models.storage import has_checksum, replace_folder, sha256_of, staging_folder

_MARKER = "conversion.json"
FORMAT = 2  # 2: the tokenizer cuts digits apart as the model's own does


def is_converted(folder: Path, gguf_sha256: str, *, verify: bool = True) -> bool:
    """Tell whether `folder` holds a conversion of the GGUF file with this checksum.

    Args:
        folder: of the conversion.
        gguf_sha256: of the GGUF file that it came from.
        verify: compare the checksums of its files as well; they may be damaged otherwise.
    """
    try:
        marker = json.loads((folder / _MARKER).read_text())
        files = marker["files"].items()
        same = marker["format"] == FORMAT and marker["gguf_sha256"] == gguf_sha256
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    if not verify:
        return bool(same) and all((folder / name).is_file() for name, _ in files)
    return same and all(has_checksum(folder / name, sha256) for name, sha256 in files)


def convert_gguf(gguf_path: Path, gguf_sha256: str, folder: Path, progress: Progress) -> None:
    """Write the model and tokenizer of a GGUF file to `folder` in transformers' layout.

    Weights are kept in float32: the dequantised values of most block formats have no exact
    bfloat16 or float16. The folder appears whole or not at all.

    Args:
        gguf_path: in a folder that the caller has locked.
        gguf_sha256: its checksum, kept in the folder so that `is_converted` can tell.
        folder: in the same parent; replaced if it is there.
        progress: told about the stage "convert".

    Raises:
        ModelLoadError: the file cannot be read, or the disk is full.
    """
    total_bytes = gguf_path.stat().st_size
    progress("convert", 0, total_bytes)
    source = Checkpoint(gguf_path.parent, gguf_path.name, source=f"gguf:{gguf_path}")
    model = source.read_model(dtype=None)
    tokenizer = source.read_tokenizer(model.config)
    with staging_folder(gguf_path.parent) as staging:
        converted = staging / folder.name
        subject = f"{gguf_path}: cannot be converted in {gguf_path.parent}"
        with failing_as_load_error(subject), quiet_libraries():
            model.save_pretrained(converted)
            tokenizer.save_pretrained(converted)
            _write_marker(converted, gguf_sha256)
        replace_folder(converted, folder)
    progress("convert", total_bytes, total_bytes)


def _write_marker(folder: Path, gguf_sha256: str) -> None:
    marker = {
        "format": FORMAT,
        "gguf_sha256": gguf_sha256,
        "versions": {name: version(name) for name in ("transformers", "gguf")},
        "files": {path.name: sha256_of(path) for path in sorted(folder.iterdir())},
    }
    (folder / _MARKER).write_text(json.dumps(marker, indent=2) + "\n")
