"""Quantised weights, packed once and kept in the cache folder."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from streamingllm.errors import ModelLoadError, first_line
from streamingllm.kernels.packing import PackedWeight
from streamingllm.models.checkpoint import Checkpoint
from streamingllm.models.progress import Progress
from streamingllm.models.quantize import install_layers, quantize_layers
from streamingllm.models.storage import staging_folder, writing_to

_FORMAT = 1
_PARTS = ("codes", "scales", "minimums")
_log = logging.getLogger("streamingllm")


@dataclass(frozen=True)
class PackedStore:
    """Read checkpoints with packed weights.

    Args:
        cache: the cache folder; packed weights go to its `quantized`.
        progress: told about the stage "quantize".
    """

    cache: Path
    progress: Progress

    def read_model(
        self, checkpoint: Checkpoint, quantization: str, dtype: torch.dtype
    ) -> PreTrainedModel:
        """Read a model whose linear layers are packed.

        If the cache folder cannot be written to, the log says so and the weights are packed again
        at the next call.

        Args:
            checkpoint: where the weights are.
            quantization: "int8" or "int4".
            dtype: of all that is not packed.

        Raises:
            ModelLoadError: the checkpoint cannot be read.
        """
        model = checkpoint.read_model(torch.float32)
        home = self.cache / "quantized"
        path = home / f"{checkpoint.fingerprint}-{quantization}-{_FORMAT}.safetensors"
        packed = _load(path)
        if packed is None:
            total = sum(p.nbytes for p in model.parameters())
            self.progress("quantize", 0, total)
            packed = quantize_layers(model, quantization)
            _keep(packed, path)
            self.progress("quantize", total, total)
        install_layers(model, packed)
        for parameter in model.parameters():
            parameter.data = parameter.data.to(dtype)
        model.config.dtype = dtype
        return model


def _keep(packed: dict[str, PackedWeight], path: Path) -> None:
    """Write packed weights to a file, whole or not at all; if that fails, say so in the log."""
    try:
        with writing_to(path.parent), staging_folder(path.parent) as staging:
            save_file(_named_parts(packed), staging / path.name)
            (staging / path.name).replace(path)
    except (ModelLoadError, SafetensorError, OSError) as error:
        _log.warning("packed weights are not kept for the next start: %s", first_line(error))


def _named_parts(packed: dict[str, PackedWeight]) -> dict[str, Tensor]:
    return {
        f"{name}.{part}": tensor
        for name, weight in packed.items()
        for part, tensor in zip(_PARTS, weight.tensors, strict=True)
        if tensor is not None
    }


def _load(path: Path) -> dict[str, PackedWeight] | None:
    """Return the packed weights of a file; None if it is missing or damaged."""
    if not path.is_file():
        return None
    try:
        tensors = load_file(path)
        names = {name.rpartition(".")[0] for name in tensors}
        return {
            name: PackedWeight(
                tensors[f"{name}.codes"], tensors[f"{name}.scales"], tensors.get(f"{name}.minimums")
            )
            for name in sorted(names)
        }
    except (SafetensorError, OSError, KeyError):
        return None
