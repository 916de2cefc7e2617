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


def _qwen3next(config: Any, state: State) -> State:
    keys, size = config.linear_num_key_heads, config.linear_key_head_dim
    shared = config.linear_num_value_heads // keys * config.linear_value_head_dim
    out: State = {}
    for name, tensor in state.items():
        block = name.replace("model.layers.", "blk.").removesuffix(
            ".linear_attn.in_proj_qkvz.weight"
        )
        if name.endswith("in_proj_qkvz.weight"):
            by_key = tensor.view(keys, -1, tensor.shape[1]).split([size, size, shared, shared], 1)
            q, k, v, z = (part.flatten(0, 1) for part in by_key)
            out[f"{block}.attn_qkv.weight"] = torch.cat([q, k, v])
            out[f"{block}.attn_gate.weight"] = z
        else:
            out |= _delta_net(name, tensor)
    return out


def _qwen35(config: Any, state: State) -> State:
    keys, size = config.linear_num_key_heads, config.linear_key_head_dim
    values = config.linear_num_value_heads

    def tiled(tensor: Tensor) -> Tensor:
        """Put the first value of each key before the second of any, along dimension 0."""
        by_key = tensor.reshape(keys, values // keys, len(tensor) // values, *tensor.shape[1:])
        return by_key.swapaxes(0, 1).reshape(tensor.shape)

    projections = ("in_proj_z.weight", "in_proj_b.weight", "in_proj_a.weight")
    tiled_names = (*projections, ".A_log", ".dt_bias")
    out: State = {}
    for name, tensor in state.items():
        changed = tensor
        if "in_proj_qkv." in name or "linear_attn.conv1d" in name:
            changed = torch.cat([tensor[: 2 * keys * size], tiled(tensor[2 * keys * size :])])
        elif name.endswith(tiled_names):
            changed = tiled(tensor)
        elif "linear_attn.out_proj" in name:
            changed = tiled(tensor.T).T
        out |= _delta_net(name, changed)
    return out


def _delta_net(name: str, tensor: Tensor) -> State:
    """Return what a gated delta net and the rest of its model become, and experts too."""
    stem = name.removesuffix(".gate_up_proj")
    if name.endswith("experts.gate_up_proj"):
        gate, up = tensor.chunk(2, -2)
        return {f"{stem}.gate_proj.weight": gate, f"{stem}.up_proj.weight": up}
    if name.endswith("experts.down_proj"):
        return {f"{name}.weight": tensor}
    if name.endswith("shared_expert_gate.weight"):
        return {name: tensor[0]}
    if name.endswith(".A_log"):
        return {name: -tensor.exp()}
    if name.endswith(".dt_bias"):
        return {name.replace(".dt_bias", ".dt_proj.bias"): tensor}
    if name.endswith("conv1d.weight"):
        return {name: tensor.squeeze()}
    if name.endswith("norm.weight") and not name.endswith("linear_attn.norm.weight"):
        return {name: tensor + 1}
    return {name: tensor}


REWRITTEN: Mapping[str, Callable[[Any, State], State]] = {
    "gemma3n": _gemma3n,
    "gemma4": _gemma4,
    "qwen3next": _qwen3next,
    "qwen35": _qwen35,
    "qwen35moe": _qwen35,
}
