"""Write a stream's state to one safetensors file and read it back, whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import struct
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save, save_file
from torch import Tensor
from transformers import PreTrainedModel

from streamingllm.errors import SnapshotError, first_line
from streamingllm.files import fsync_folder

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
    flat = _flat(tensors)
    header = _header(flat, facts)
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
        raise SnapshotError(f"{path}: cannot be written ({first_line(error)})") from error
    finally:
        if partial is not None:
            with contextlib.suppress(FileNotFoundError):
                partial.unlink()


def read_snapshot(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and facts of a snapshot.

    Raises:
        SnapshotError: the file is missing, damaged, or no snapshot of this version.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            _check_header(header, str(path))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise SnapshotError(f"{path}: cannot be read ({first_line(error)})") from error
    return tensors, _checked_facts(tensors, header, str(path))


def snapshot_to_bytes(tensors: dict[str, Tensor], facts: dict[str, Any]) -> bytes:
    """Return tensors and JSON-able facts in the format of a snapshot file."""
    flat = _flat(tensors)
    return save(flat, metadata=_header(flat, facts))


def snapshot_from_bytes(data: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and facts that `snapshot_to_bytes` wrote.

    Raises:
        SnapshotError: the bytes are damaged, or no snapshot of this version.
    """
    try:
        (length,) = struct.unpack_from("<Q", data)
        header = json.loads(data[8 : 8 + length]).get("__metadata__", {})
        _check_header(header, "snapshot")
        tensors = load(data)
    except (struct.error, ValueError, AttributeError, SafetensorError) as error:
        raise SnapshotError(f"snapshot: cannot be read ({first_line(error)})") from error
    return tensors, _checked_facts(tensors, header, "snapshot")


def _flat(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _header(flat: dict[str, Tensor], facts: dict[str, Any]) -> dict[str, str]:
    text = json.dumps(facts)
    version = str(VERSION)
    return {"format": FORMAT, "version": version, "facts": text, "digest": _digest(flat, text)}


def _check_header(header: dict[str, str], name: str) -> None:
    if header.get("format") != FORMAT:
        raise SnapshotError(f"{name}: is not a snapshot of a stream")
    if header.get("version") != str(VERSION):
        raise SnapshotError(
            f"{name}: has version {header.get('version')}; this release reads {VERSION}"
        )


def _checked_facts(tensors: dict[str, Tensor], header: dict[str, str], name: str) -> dict[str, Any]:
    if _digest(tensors, header.get("facts", "")) != header.get("digest"):
        raise SnapshotError(f"{name}: is damaged (its checksum does not fit); restore a backup")
    facts: dict[str, Any] = json.loads(header["facts"])
    return facts


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
