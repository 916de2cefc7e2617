"""Read the configuration and the headers of a checkpoint, not its weights."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, PreTrainedConfig

from streamingllm.models.checkpoint import Checkpoint
from streamingllm.models.failures import failing_as_load_error
from streamingllm.models.gguf_header import read_gguf_header
from streamingllm.models.quiet import quiet_libraries
from streamingllm.models.weight_headers import first_dtype, safetensors_headers


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
        headers = safetensors_headers(checkpoint.folder)
    configured = getattr(config, "dtype", None)
    stored = configured if isinstance(configured, torch.dtype) else first_dtype(headers)
    return Outline(config, stored)


def _gguf_config(checkpoint: Checkpoint) -> PreTrainedConfig:
    header = read_gguf_header(checkpoint.path)
    header.check_complete()
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
