"""Load a model by name."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel

from streamingllm.cache_folder import cache_folder
from streamingllm.checks import check_integer
from streamingllm.errors import ConfigError
from streamingllm.models.calibration import Calibration
from streamingllm.models.catalog import DEFAULT_MODEL
from streamingllm.models.checkpoint import Checkpoint
from streamingllm.models.failures import failing_as_load_error
from streamingllm.models.formats.registry import quantization_settings
from streamingllm.models.language_model import LanguageModel
from streamingllm.models.locate import locate_checkpoint
from streamingllm.models.one_by_one import read_one_by_one
from streamingllm.models.packed_store import PackedStore, start_reading
from streamingllm.models.placement import dtype_in_memory, resolve_device, resolve_dtype
from streamingllm.models.progress import Progress, ignore_progress
from streamingllm.models.quantize import check_quantization
from streamingllm.models.tuned_config import read_tuned_config
from streamingllm.text_files import read_text_file

DEFAULT_CALIBRATION_TOKENS = 4096
_log = logging.getLogger("streamingllm")


def load_model(
    name_or_path: str | Path = DEFAULT_MODEL,
    *,
    dtype: str | torch.dtype = "auto",
    device: str | torch.device = "auto",
    quantize: str = "auto",
    calibration_tokens: int = DEFAULT_CALIBRATION_TOKENS,
    calibration_text: str | Path | None = None,
    tuned: bool = False,
    cache_dir: str | Path | None = None,
    progress: Progress = ignore_progress,
) -> LanguageModel:
    """Load a decoder and its tokenizer, ready for inference.

    Args:
        name_or_path: a name of the catalog, a hub id (`organisation/model`), a local folder or a
            `.gguf` file; `locate_checkpoint` says in which order these are tried.
        dtype: `float64`, `float32`, `bfloat16`, `float16` or `auto`. The last is what the
            checkpoint is stored in (float32 for GGUF), except float32 for half precision on a CPU.
        quantize: `native` computes with the bits of a GGUF file or of quantised safetensors as they
            are. `int8` and `int4` round weights in groups of 32, which lose nothing of GGUF's
            Q8_0, Q4_0 and Q4_1. All else is then bfloat16 for dtype `auto`. `none` dequantises.
            `auto` is native for weights that are quantised already on a CPU, else none.
        calibration_tokens: in view of which `int4` rounds safetensors; 0 rounds each weight by
            itself, in a fraction of the time.
        calibration_text: file in UTF-8 that these tokens come from; best is text of the kind that
            the model is for. None takes Python's own reference and pages of a novel.
        device: `cpu`, `cuda`, `cuda:0`, `mps`, or `auto`: the first accelerator there is.
        tuned: give the result the sinks and the window that `streamingllm tune --save` found for
            these weights, as `stream_config`.
        cache_dir: where packaged models are kept; by default the user's cache folder.
        progress: told how far a fetch has come.

    Returns:
        The model in evaluation mode, no parameter of which requires a gradient.

    Raises:
        ConfigError: `dtype`, `device` or `quantize` is not among those there are, or
            `calibration_tokens` is negative; `calibration_text` would have no effect; or `tuned`,
            and nothing was saved.
        InputError: `calibration_text` cannot be read, or is shorter than a sequence of tokens.
        ModelLoadError: the model cannot be found, fetched or read.
    """
    wanted_dtype, wanted_device = resolve_dtype(dtype), resolve_device(device)
    if wanted_device.type == "mps" and wanted_dtype is torch.float64:
        raise ConfigError("dtype='float64' does not exist on mps; choose another one")
    check_quantization(quantize)
    check_integer("calibration_tokens", calibration_tokens, 0)
    calibration = _calibration(calibration_tokens, calibration_text)
    if quantize not in ("auto", "none") and wanted_device.type != "cpu":
        raise ConfigError(
            f"quantize={quantize!r} has kernels for CPUs alone; choose none on {wanted_device}"
        )
    checkpoint = locate_checkpoint(name_or_path, cache_dir=cache_dir, progress=progress)
    config = read_tuned_config(checkpoint.source, cache_folder(cache_dir)) if tuned else None
    quantize = _resolve_quantization(quantize, checkpoint, wanted_device)
    if calibration_text is not None:
        _check_calibrates(calibration, quantize, checkpoint)
    error = None
    if quantize == "native" and checkpoint.gguf_file is not None:
        model = checkpoint.read_native(wanted_dtype or torch.float32, progress)
    elif quantize != "none":
        store = PackedStore(cache_folder(cache_dir), progress, calibration)
        model, error = store.read_model(checkpoint, quantize, wanted_dtype or torch.bfloat16)
    else:
        model = _read(checkpoint, str(name_or_path), wanted_dtype, wanted_device, progress)
    if error:
        _log.warning(
            "quantize=%s changes the weights of %s by %.2g %% of their size (root mean square)",
            quantize, name_or_path, 100 * error,
        )  # fmt: skip
    tokenizer = checkpoint.read_tokenizer(model.config)
    model.eval().requires_grad_(False)
    return LanguageModel(
        model=model,
        tokenizer=tokenizer,
        name=str(name_or_path),
        source=checkpoint.source,
        quantization=quantize,
        rounding_error=error,
        stream_config=config,
    )


def _calibration(num_tokens: int, file: str | Path | None) -> Calibration:
    if file is None:
        return Calibration(num_tokens)
    text = read_text_file("calibration_text", str(file), "name a text file")
    return Calibration(num_tokens, text)


def _check_calibrates(calibration: Calibration, quantize: str, checkpoint: Checkpoint) -> None:
    if quantize != "int4" or not checkpoint.has_shards or not calibration.num_tokens:
        raise ConfigError(
            f"calibration_text has no effect with quantize={quantize!r}, calibration_tokens="
            f"{calibration.num_tokens} and {checkpoint.path}; leave it out, or round safetensors "
            "to int4"
        )


def _resolve_quantization(quantize: str, checkpoint: Checkpoint, device: torch.device) -> str:
    is_quantized = checkpoint.has_blocks or _is_quantized_folder(checkpoint)
    if quantize == "auto":
        return "native" if device.type == "cpu" and is_quantized else "none"
    if quantize == "native" and not is_quantized:
        raise ConfigError(
            f"quantize='native' needs a GGUF file or safetensors with quantised weights, which "
            f"{checkpoint.path} is not; choose none, int8 or int4"
        )
    return quantize


def _is_quantized_folder(checkpoint: Checkpoint) -> bool:
    return checkpoint.has_shards and quantization_settings(checkpoint.folder) is not None


def _read(
    checkpoint: Checkpoint,
    name: str,
    dtype: torch.dtype | None,
    device: torch.device,
    progress: Progress,
) -> PreTrainedModel:
    if _is_quantized_folder(checkpoint):
        config = checkpoint.read_config()
        stored = config.dtype if isinstance(config.dtype, torch.dtype) else torch.bfloat16
        memory_dtype = dtype_in_memory(dtype, stored, device)
        reading = start_reading(checkpoint, memory_dtype, progress, "read")
        model = read_one_by_one(reading, config)
    else:
        model = checkpoint.read_model(dtype)
    placed: nn.Module = model
    in_memory = dtype_in_memory(dtype, model.dtype, device)
    if dtype is None and in_memory is not model.dtype:
        placed.to(in_memory)
    with failing_as_load_error(f"{name}: does not fit on device {device}"):
        placed.to(device)
    return model
