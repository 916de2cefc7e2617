"""Quantised weights, packed once and kept in the cache folder."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import PreTrainedModel

from streamingllm.errors import ModelLoadError, first_line
from streamingllm.kernels.packing import PackedWeight
from streamingllm.models.calibration import Calibration, round_calibrated, sequence_length
from streamingllm.models.checkpoint import Checkpoint
from streamingllm.models.failures import failing_as_load_error
from streamingllm.models.formats.registry import quantization_settings, stored_weights
from streamingllm.models.one_by_one import Reading, read_one_by_one
from streamingllm.models.progress import Progress
from streamingllm.models.quantize import install_layers
from streamingllm.models.rounding import (
    Rounding,
    keep_dense,
    keep_own_bits,
    quantize_layers,
    squared_error,
)
from streamingllm.models.shards import Shards
from streamingllm.models.storage import staging_folder, writing_to
from streamingllm.models.tensor_file import write_tensors

_FORMAT = 2
_PARTS = ("codes", "scales", "minimums")
_log = logging.getLogger("streamingllm")


@dataclass(frozen=True)
class Kept:
    """Hold packed weights of a model, and how they came about.

    Args:
        packed: by the name of the layer.
        sources: the tensor of the checkpoint that each was read from.
        relative_error: root of the squared rounding error over the squared weights; None if it
            was not measured.
    """

    packed: dict[str, PackedWeight]
    sources: dict[str, str] = field(default_factory=dict)
    relative_error: float | None = None


@dataclass(frozen=True)
class PackedStore:
    """Read checkpoints with packed weights.

    Args:
        cache: the cache folder; packed weights go to its `quantized`.
        progress: told about the stages "quantize", "calibrate" and "read".
        calibration: in view of which "int4" rounds safetensors.
    """

    cache: Path
    progress: Progress
    calibration: Calibration

    def read_model(
        self, checkpoint: Checkpoint, quantization: str, dtype: torch.dtype
    ) -> tuple[PreTrainedModel, float | None]:
        """Read a model whose linear layers are packed.

        If the cache folder cannot be written to, the log says so and the weights are packed again
        at the next call.

        Args:
            checkpoint: where the weights are.
            quantization: "int8", "int4" or, for quantised safetensors, "native".
            dtype: of all that is not packed.

        Returns:
            the model, and the relative error of its rounded weights, or None if not measured.

        Raises:
            ModelLoadError: the checkpoint cannot be read, or no layout holds its own bits.
        """
        kind = quantization
        if checkpoint.has_shards and quantization == "int4" and self.calibration.num_tokens:
            kind += f"-{self.calibration.label}"
        name = f"{checkpoint.fingerprint}-{kind}-{_FORMAT}.safetensors"
        path = self.cache / "quantized" / name
        if checkpoint.has_shards:
            return self._read_shards(checkpoint, quantization, dtype, path)
        model = checkpoint.read_model(torch.float32)
        kept = _load(path)
        if kept is None:
            total = sum(p.nbytes for p in model.parameters())
            self.progress("quantize", 0, total)
            rounding = Rounding(int(quantization.removeprefix("int")))
            packed = quantize_layers(model, rounding)
            kept = Kept(packed, relative_error=rounding.relative_error)
            _keep(kept, path)
            self.progress("quantize", total, total)
        install_layers(model, kept.packed)
        for parameter in model.parameters():
            parameter.data = parameter.data.to(dtype)
        model.config.dtype = dtype
        return model, kept.relative_error

    def _read_shards(
        self, checkpoint: Checkpoint, quantization: str, dtype: torch.dtype, path: Path
    ) -> tuple[PreTrainedModel, float | None]:
        kept = _load(path)
        rounding = None
        if quantization != "native":
            is_provisional = quantization == "int4" and self.calibration.num_tokens > 0
            rounding = Rounding(int(quantization.removeprefix("int")), is_provisional)
        stage = "quantize" if kept is None else "read"
        reading = start_reading(checkpoint, dtype, self.progress, stage)
        reading.pack = keep_own_bits if rounding is None else rounding
        if kept is not None:
            reading.kept, reading.sources = kept.packed, kept.sources
        model = read_one_by_one(reading, checkpoint.read_config())
        if kept is None:
            if rounding is not None and rounding.provisional:
                self._calibrate(checkpoint, model, reading, rounding)
            error = 0.0 if rounding is None else rounding.relative_error
            kept = Kept(reading.packed, reading.packed_from, error)
            _keep(kept, path)
        return model, kept.relative_error

    def _calibrate(
        self,
        checkpoint: Checkpoint,
        model: PreTrainedModel,
        reading: Reading,
        rounding: Rounding,
    ) -> None:
        """Round the layers that have eight bits for now."""
        paths = [path for path in rounding.provisional if reading.has_original(path)]
        tokenizer, length = checkpoint.read_tokenizer(model.config), sequence_length(model.config)
        ids = self.calibration.ids(tokenizer, length)
        model.eval()
        progress = partial(self.progress, "calibrate")
        for path, packed, weight in round_calibrated(model, reading.original, paths, ids, progress):
            reading.packed[path] = packed
            rounding.squared_error += squared_error(packed, weight)


def start_reading(
    checkpoint: Checkpoint, dtype: torch.dtype, progress: Progress, stage: str
) -> Reading:
    """Open the shards of a checkpoint, of which nothing is packed unless told.

    Args:
        checkpoint: in safetensors files.
        dtype: of the weights in memory.
        progress: told about the stage.
        stage: its name.
    """
    with failing_as_load_error(f"{checkpoint.path}: cannot be read as a decoder"):
        shards = Shards(checkpoint.folder)
        settings = quantization_settings(checkpoint.folder)
        stored = {} if settings is None else stored_weights(shards, settings)
    return Reading(shards, stored, dtype, keep_dense, partial(progress, stage))


def _keep(kept: Kept, path: Path) -> None:
    """Write packed weights to a file, whole or not at all; if that fails, say so in the log."""
    facts = {"sources": json.dumps(kept.sources), "relative_error": json.dumps(kept.relative_error)}
    try:
        with writing_to(path.parent), staging_folder(path.parent) as staging:
            write_tensors(staging / path.name, _named_parts(kept.packed), facts)
            (staging / path.name).replace(path)
    except (ModelLoadError, OSError) as error:
        _log.warning("packed weights are not kept for the next start: %s", first_line(error))


def _named_parts(packed: dict[str, PackedWeight]) -> dict[str, Tensor]:
    return {
        f"{name}.{part}": tensor
        for name, weight in packed.items()
        for part, tensor in zip(_PARTS, weight.tensors, strict=True)
        if tensor is not None
    }


def _load(path: Path) -> Kept | None:
    """Return the packed weights of a file; None if it is missing or damaged."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            facts = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        names = {name.rpartition(".")[0] for name in tensors}
        packed = {
            name: PackedWeight(
                tensors[f"{name}.codes"], tensors[f"{name}.scales"], tensors.get(f"{name}.minimums")
            )
            for name in sorted(names)
        }
        return Kept(packed, json.loads(facts["sources"]), json.loads(facts["relative_error"]))
    except (SafetensorError, OSError, KeyError, ValueError, TypeError):
        return None
