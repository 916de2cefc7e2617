"""Read the configuration and the headers of a checkpoint, not its weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import AutoConfig, PreTrainedConfig

from streamingllm.models.checkpoint import Checkpoint
from streamingllm.models.failures import failing_as_load_error
from streamingllm.models.gguf.config import gguf_config, is_read_here
from streamingllm.models.gguf.parts import read_gguf_model
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
    header = read_gguf_model(checkpoint.path)
    if is_read_here(header):
        return gguf_config(header)
    config = AutoConfig.from_pretrained(
        checkpoint.folder, gguf_file=checkpoint.gguf_file, local_files_only=True
    )
    assert isinstance(config, PreTrainedConfig)
    return config
