"""Write a stream's state to one safetensors file and read it back, whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from streamingllm.errors import SnapshotError

FORMAT = "streamingllm-stream"
VERSION = 2


def model_fingerprint(model: PreTrainedModel) -> str:
    """Return what tells models apart: architecture, sizes, dtype and a sample of the weights."""
    config = model.config.get_text_config()
    names = ("num_hidden_layers", "hidden_size", "num_attention_heads", "vocab_size")
    facts = {name: getattr(config, name, None) for name in names}
    digest = hashlib.blake2b(digest_size=16)
    digest.update(json.dumps([model.config.model_type, facts, str(model.dtype)]).encode())
    parameters = list(model.parameters())
    for parameter in (parameters[0], parameters[len(parameters) // 2], parameters[-1]):
        digest.update(_bytes_of(parameter.detach().flatten()[:4096]))
    return digest.hexdigest()


def write_snapshot(path: Path, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Write tensors and JSON-able facts, replacing `path` only once all of it is on the disk.

    Raises:
        SnapshotError: the file cannot be written; a file that was there before is untouched.
    """
    flat = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    header = {
        "format": FORMAT,
        "version": str(VERSION),
        "facts": json.dumps(facts),
        "digest": _digest(flat, json.dumps(facts)),
    }
    partial: Path | None = None
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
        os.close(handle)
        partial = Path(name)
        save_file(flat, partial, metadata=header)
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
        fsync_folder(path.parent)
    except (OSError, SafetensorError) as error:
        raise SnapshotError(f"{path}: cannot be written ({_one_line(error)})") from error
    finally:
        if partial is not None:
            with contextlib.suppress(FileNotFoundError):
                partial.unlink()


def fsync_folder(folder: Path) -> None:
    """Write a folder's entries to the disk: a file that was put in its place is there for good."""
    if os.name != "posix":  # elsewhere a folder cannot be opened
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_snapshot(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and facts of a snapshot.

    Raises:
        SnapshotError: the file is missing, damaged, or no snapshot of this version.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            if header.get("format") != FORMAT:
                raise SnapshotError(f"{path}: is not a snapshot of a stream")
            if header.get("version") != str(VERSION):
                raise SnapshotError(
                    f"{path}: has version {header.get('version')}; this release reads {VERSION}"
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise SnapshotError(f"{path}: cannot be read ({_one_line(error)})") from error
    if _digest(tensors, header.get("facts", "")) != header.get("digest"):
        raise SnapshotError(f"{path}: is damaged (its checksum does not fit); restore a backup")
    return tensors, json.loads(header["facts"])


def _digest(tensors: dict[str, Tensor], facts: str) -> str:
    digest = hashlib.blake2b(digest_size=16)
    digest.update(facts.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
        digest.update(_bytes_of(tensor))
    return digest.hexdigest()


def _bytes_of(tensor: Tensor) -> bytes:
    return tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
