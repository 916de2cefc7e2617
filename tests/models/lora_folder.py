"""A LoRA adapter in the files of PEFT, and the weights of the model it makes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

TARGETS = ("q_proj", "v_proj", "down_proj")


def write_adapter(folder: Path, model: nn.Module, seed: int, **fields: Any) -> dict[str, Tensor]:
    """Write a random adapter of rank 4; return what it adds to each weight, by the layer's name."""
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "tiny",
        "r": 4,
        "lora_alpha": 6,
        "lora_dropout": 0.1,
        "target_modules": list(TARGETS),
        "bias": "none",
        **fields,
    }
    generator = torch.Generator().manual_seed(seed)
    tensors, added = {}, {}
    for name, layer in model.named_modules():
        if name.rpartition(".")[2] not in TARGETS:
            continue
        rank = config.get("rank_pattern", {}).get(name.rpartition(".")[2], config["r"])
        alpha = config.get("alpha_pattern", {}).get(name.rpartition(".")[2], config["lora_alpha"])
        rows, columns = layer.out_features, layer.in_features
        down = torch.randn(rank, columns, generator=generator) * 0.2
        up = torch.randn(rows, rank, generator=generator) * 0.2
        tensors[f"base_model.model.{name}.lora_A.weight"] = down
        tensors[f"base_model.model.{name}.lora_B.weight"] = up
        divisor = rank**0.5 if config.get("use_rslora") else rank
        added[name] = alpha / divisor * (up @ down)
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "adapter_model.safetensors")
    return added
