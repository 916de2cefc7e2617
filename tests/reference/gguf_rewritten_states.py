"""Weights of families whose tensors llama.cpp's converter joins, splits or changes in value.

Source: https://github.com/ggml-org/llama.cpp/tree/master/conversion, one file per family.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

State = dict[str, Tensor]


def _gemma3n(config: Any, state: State) -> State:
    out = {f"{k}.weight" if k.endswith("_scale") else k: v for k, v in state.items()}
    for stack in ("altup_projections", "altup_unembed_projections"):
        parts = [out.pop(f"model.{stack}.{i}.weight") for i in range(config.altup_num_inputs - 1)]
        out[f"model.{stack}.weight"] = torch.stack(parts)
    first = config.num_hidden_layers - config.num_kv_shared_layers
    for layer in range(first, config.num_hidden_layers):  # checkpoints have keys in all layers
        for name in ("k_proj", "v_proj", "k_norm"):
            out[f"model.layers.{layer}.self_attn.{name}.weight"] = torch.zeros(3, 32)
    return out


def _gemma4(config: Any, state: State) -> State:
    out = {}
    for name, tensor in state.items():
        block = name.replace("model.layers.", "blk.").removesuffix(".router.scale")
        if name.endswith(".router.scale"):
            out[f"{block}.ffn_gate_inp.scale"] = tensor
        elif name.endswith("per_expert_scale"):
            block = block.removesuffix(".router.per_expert_scale")
            out[f"{block}.ffn_down_exps.scale"] = tensor
        elif name.endswith("layer_scalar") or ".experts." in name:
            out[f"{name}.weight"] = tensor
        else:
            out[name] = tensor
    return out


REWRITTEN: Mapping[str, Callable[[Any, State], State]] = {
    "gemma3n": _gemma3n,
    "gemma4": _gemma4,
}
