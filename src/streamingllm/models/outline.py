"""Read the configuration and the headers of a checkpoint, not its weights."""

from __future__ import annotations

import json
import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, PreTrainedConfig

from streamingllm.errors import ModelLoadError
from streamingllm.models.checkpoint import Checkpoint
from streamingllm.models.failures import failing_as_load_error
from streamingllm.models.gguf_header import read_gguf_header
from streamingllm.models.quiet import quiet_libraries

_INDEX = "model.safetensors.index.json"
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}


@dataclass(frozen=True)
class Outline:
    """Hold what is known of a model before its weights are read.

    Args:
        config: the model's configuration.
        stored_dtype: of the weights in memory if none is asked for; float32 for GGUF.
    """

    config: PreTrainedConfig
    stored_dtype: torch.dtype


def read_outline(checkpoint: Checkpoint) -> Outline:
    """Read the configuration of a checkpoint and the headers of its weights.

    Raises:
        ModelLoadError: the architecture is unknown, or a file is missing, damaged or cut short.
    """
    subject = f"{checkpoint.path}: cannot be read as a decoder"
    with failing_as_load_error(subject), quiet_libraries():
        if checkpoint.gguf_file is not None:
            return Outline(_gguf_config(checkpoint), torch.float32)
        config = AutoConfig.from_pretrained(checkpoint.folder, local_files_only=True)
        headers = [_safetensors_header(path) for path in _weight_files(checkpoint.folder)]
    configured = getattr(config, "dtype", None)
    stored = configured if isinstance(configured, torch.dtype) else _first_dtype(headers)
    return Outline(config, stored)


def _gguf_config(checkpoint: Checkpoint) -> PreTrainedConfig:
    header = read_gguf_header(checkpoint.path)
    actual, promised = checkpoint.path.stat().st_size, header.data_offset + header.data_bytes
    if actual < promised:
        raise ModelLoadError(
            f"{checkpoint.path}: has {actual:,} bytes of {promised:,}; fetch the file again"
        )
    architecture, tokens = header.metadata.get("general.architecture"), "tokenizer.ggml.tokens"
    fields: dict[str, Any] = {}
    if f"{architecture}.vocab_size" not in header.metadata and tokens in header.metadata:
        count = header.metadata[tokens]
        fields["vocab_size"] = len(count) if isinstance(count, list) else int(count)
    with tempfile.TemporaryDirectory() as folder:
        header.write_without_weights(Path(folder) / "header.gguf")
        try:
            return _read_gguf_config(Path(folder), "header.gguf", fields)
        except KeyError:  # of a family whose configuration follows from its vocabulary
            return _read_gguf_config(checkpoint.folder, checkpoint.gguf_file, {})


def _read_gguf_config(
    folder: Path, gguf_file: str | None, fields: dict[str, Any]
) -> PreTrainedConfig:
    config = AutoConfig.from_pretrained(
        folder, gguf_file=gguf_file, local_files_only=True, **fields
    )
    assert isinstance(config, PreTrainedConfig)
    return config


def _weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files that a folder should have."""
    index = folder / _INDEX
    found = sorted(folder.glob("*.safetensors"))
    if not found or not index.is_file():  # none has been fetched if only the headers are asked for
        return found
    weight_map: dict[str, str] = json.loads(index.read_text())["weight_map"]
    return [folder / name for name in sorted(set(weight_map.values()))]


def _safetensors_header(path: Path) -> dict[str, Any]:
    """Return the header of a safetensors file.

    Source: https://huggingface.co/docs/safetensors, Format.
    """
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header: dict[str, Any] = json.loads(file.read(length))
    header.pop("__metadata__", None)
    end = 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0)
    if path.stat().st_size < end:
        raise ModelLoadError(
            f"{path}: has {path.stat().st_size:,} bytes of {end:,}; fetch the file again"
        )
    return header


def _first_dtype(headers: list[dict[str, Any]]) -> torch.dtype:
    names = (entry["dtype"] for header in headers for entry in header.values())
    return next((_DTYPES[name] for name in names if name in _DTYPES), torch.float32)
