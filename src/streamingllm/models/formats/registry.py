"""The format of a checkpoint, by what its configuration says."""

from __future__ import annotations

import json
from pathlib import Path

from streamingllm.errors import ModelLoadError
from streamingllm.models.formats.awq import awq_weights
from streamingllm.models.formats.base import Settings, StoredTensor, WeightFormat
from streamingllm.models.formats.compressed_tensors import compressed_weights
from streamingllm.models.formats.float8 import float8_weights
from streamingllm.models.formats.gptq import gptq_weights
from streamingllm.models.formats.mxfp4 import mxfp4_weights
from streamingllm.models.formats.torchao import torchao_weights
from streamingllm.models.shards import Shards

FORMATS: dict[str, WeightFormat] = {
    "gptq": gptq_weights,
    "awq": awq_weights,
    "compressed-tensors": compressed_weights,
    "fp8": float8_weights,
    "fbgemm_fp8": float8_weights,
    "mxfp4": mxfp4_weights,
    "torchao": torchao_weights,
}


def quantization_settings(folder: Path) -> Settings | None:
    """Return what config.json says of quantised weights; None if they are not quantised."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    nested = (config.get(key) for key in ("text_config", "llm_config"))
    for part in (config, *(n for n in nested if isinstance(n, dict))):
        settings = part.get("quantization_config")
        if isinstance(settings, dict):
            return settings
    return None


def stored_weights(shards: Shards, settings: Settings) -> dict[str, StoredTensor]:
    """Return the quantised weights of a checkpoint by their name in the dense model.

    Raises:
        ModelLoadError: its format, or the variant of it, is not read.
    """
    method = str(settings.get("quant_method"))
    if method not in FORMATS:
        raise ModelLoadError(
            f"{shards.folder}: quantization_config.quant_method={method!r} is not read; choose a "
            f"checkpoint in one of {', '.join(FORMATS)}, or one without quantised weights"
        )
    return FORMATS[method](shards, settings)
