"""The headers of a checkpoint's weights: names and shapes of tensors, without their numbers."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import torch

from streamingllm.errors import ModelLoadError

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
_INDEX = "model.safetensors.index.json"
_LAYER = re.compile(r"(?:[a-z_]+\.)*(?:layers|h|blocks|blk)\.(\d+)\.(.+)")
_OUTER = re.compile(
    r"(?:[a-z_]+\.)*(?:embed_tokens|embed_in|embed_positions|embeddings|wte|wpe|word_embeddings|"
    r"word_embeddings_layernorm|norm|norm_f|ln_f|final_layer_norm|final_layernorm|project_in|"
    r"project_out|token_embd|token_embd_norm|position_embd|output_norm)\.(?:weight|bias)"
)
_OUTPUT = re.compile(r"(?:lm_head|embed_out|output)\.(weight|bias)")
# Tables, masks and running statistics that files carry along.
_NO_PARAMETER = re.compile(
    r"(?:.*\.)?(?:inv_freq|masked_bias|e_score_correction_bias|exp_probs_b(?:\.bias)?|"
    r"attn_rot_embd|rope_freqs\.weight|rope_factors_(?:long|short)\.weight)"
    r"|.*\.(?:attn|attention)\.bias"
)

Shapes = Mapping[str, tuple[int, ...]]


def safetensors_headers(folder: Path) -> list[dict[str, Any]]:
    """Return the header of each safetensors file that a folder should have, none if it has none.

    Raises:
        ModelLoadError: a file is cut short.
        OSError: a file that the index names is missing.
    """
    return [_safetensors_header(path) for path in weight_files(folder)]


def first_dtype(headers: list[dict[str, Any]]) -> torch.dtype:
    """Return the data type of the first tensor of floating-point numbers; float32 without one."""
    names = (entry["dtype"] for header in headers for entry in header.values())
    return next((_DTYPES[name] for name in names if name in _DTYPES), torch.float32)


def shapes_of(headers: list[dict[str, Any]]) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor by its name."""
    return {name: tuple(entry["shape"]) for header in headers for name, entry in header.items()}


def num_parameters(shapes: Shapes, num_layers: int, tied: bool) -> int | None:
    """Count a decoder's parameters, tied ones once; None if a tensor's use is not known.

    Args:
        shapes: of all tensors of a checkpoint, in the names of transformers or of GGUF.
        num_layers: layers of the model; files may hold more, for training, that it leaves out.
        tied: whether the output layer is the embedding.
    """
    total, layers, has_output = 0, set(), False
    for name, shape in shapes.items():
        if _NO_PARAMETER.fullmatch(name):
            continue
        if (layer := _LAYER.fullmatch(name)) is not None:
            if int(layer[1]) >= num_layers:
                continue
            layers.add(int(layer[1]))
        elif (output := _OUTPUT.fullmatch(name)) is not None:
            if output[1] == "weight":
                has_output = True
                if tied:
                    continue
        elif _OUTER.fullmatch(name) is None:
            return None
        total += prod(shape)
    complete = layers == set(range(num_layers)) and (tied or has_output)
    return total if complete else None


def weight_files(folder: Path) -> list[Path]:
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
