"""Read a LoRA adapter from a folder of PEFT.

Source: Hu et al., "LoRA" (arXiv 2106.09685); https://huggingface.co/docs/peft, Checkpoint format.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from streamingllm.errors import ModelLoadError
from streamingllm.integration.lora import LoraAdapter, LowRank
from streamingllm.models.failures import failing_as_load_error
from streamingllm.models.packed_linear import PackedLinear
from streamingllm.models.shards import Shards

_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_NAME = re.compile(r"base_model\.model\.(.+)\.lora_([AB])(?:\.default)?\.weight")
# Fields that change what is computed; any other value than these is refused by name.
_PLAIN: Mapping[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "use_dora": (False, None),
    "bias": ("none", None),
    "lora_bias": (False, None),
    "fan_in_fan_out": (False, None),
    "modules_to_save": (None, []),
    "layer_replication": (None, []),
    "target_parameters": (None, []),
    "trainable_token_indices": (None, [], {}),
    "alora_invocation_tokens": (None, []),
    "use_qalora": (False, None),
    "use_bdlora": (False, None),
    "arrow_config": (None,),
}


def read_adapter(folder: Path, model: PreTrainedModel, name: str) -> LoraAdapter:
    """Read an adapter and put its hooks on the linear layers of a model.

    Args:
        folder: with `adapter_config.json` and `adapter_model.safetensors`.
        model: the base model; its linear layers may be packed.
        name: for people to read.

    Raises:
        ModelLoadError: a file is missing or damaged, the adapter is of a kind that is not computed,
            or it belongs to another model.
    """
    with failing_as_load_error(f"{folder}: cannot be read as an adapter"):
        for file in (_CONFIG, _WEIGHTS):
            if not (folder / file).is_file():
                raise ModelLoadError(f"{folder}: has no {file}; choose a folder that PEFT saved")
        config: dict[str, Any] = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
        _check(folder, config)
        pairs = _pairs(folder)
        layers = {
            _layer(folder, model, path): _low_rank(folder, model, path, pair, config)
            for path, pair in pairs.items()
        }
    return LoraAdapter(name, _fingerprint(folder), model, layers)


def _check(folder: Path, config: Mapping[str, Any]) -> None:
    for field, allowed in _PLAIN.items():
        value = config.get(field, allowed[0])
        if value not in allowed:
            raise ModelLoadError(
                f"{folder}: {field}={value!r} is not computed; choose a LoRA adapter with "
                f"{field}={allowed[0]!r}, or merge the adapter into its model"
            )


def _pairs(folder: Path) -> dict[str, dict[str, Tensor]]:
    """Return matrices A and B of each layer by its path."""
    shards = Shards(folder)
    pairs: dict[str, dict[str, Tensor]] = {}
    for name in shards.names:
        match = _NAME.fullmatch(name)
        if match is None:
            raise ModelLoadError(
                f"{folder}: {name} is no matrix of a linear layer; choose an adapter of linear "
                "layers alone"
            )
        pairs.setdefault(match[1], {})[match[2]] = shards.read(name).float()
    if not pairs:
        raise ModelLoadError(f"{folder}: {_WEIGHTS} is empty; choose a folder that PEFT saved")
    return pairs


def _layer(folder: Path, model: PreTrainedModel, path: str) -> nn.Module:
    modules = dict(model.named_modules())
    layer = modules.get(path)
    if not isinstance(layer, nn.Linear | PackedLinear):
        raise ModelLoadError(
            f"{folder}: adapts {path}, which is no linear layer of {type(model).__name__}; load "
            "the model that it was trained on"
        )
    return layer


def _low_rank(
    folder: Path,
    model: PreTrainedModel,
    path: str,
    pair: Mapping[str, Tensor],
    config: Mapping[str, Any],
) -> LowRank:
    layer: Any = model.get_submodule(path)
    if pair.keys() != {"A", "B"}:
        raise ModelLoadError(f"{folder}: {path} has lora_{min(pair)} alone; fetch the files again")
    down, up = pair["A"], pair["B"]
    rank = len(down)
    expected = ((rank, layer.in_features), (layer.out_features, rank))
    if (tuple(down.shape), tuple(up.shape)) != expected:
        raise ModelLoadError(
            f"{folder}: {path} has matrices {tuple(down.shape)} and {tuple(up.shape)}, and the "
            f"layer is {layer.out_features} x {layer.in_features}; load the model that it was "
            "trained on"
        )
    alpha = _of_pattern(config.get("alpha_pattern"), path, config.get("lora_alpha", 8))
    scaling = alpha / (rank**0.5 if config.get("use_rslora") else rank)
    dtype, device = model.dtype, model.device
    return LowRank(down.to(device, dtype), (up * scaling).to(device, dtype))


def _of_pattern(patterns: Mapping[str, float] | None, path: str, value: float) -> float:
    """Return what the first pattern that fits the end of a path says, else `value`."""
    for pattern, other in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", path):
            return other
    return value


def _fingerprint(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in (_CONFIG, _WEIGHTS):
        digest.update((folder / file).read_bytes())
    return digest.hexdigest()[:24]
