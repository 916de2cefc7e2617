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


def _joined_qwen3next(config: Any, state: State) -> State:
    """Return the layout of older files, which have a projection in one tensor."""
    out: State = {}
    for name, tensor in state.items():
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


def _granite_hybrid(config: Any, state: State) -> State:
    out: State = {}
    for name, tensor in state.items():
        block = name.replace("model.layers.", "blk.")
        if name.endswith("shared_mlp.input_linear.weight"):
            ending = "_shexp" if config.num_local_experts else ""
            for part, half in zip(("gate", "up"), tensor.chunk(2), strict=True):
                stem = block.removesuffix(".shared_mlp.input_linear.weight")
                out[f"{stem}.ffn_{part}{ending}.weight"] = half
        elif name.endswith("shared_mlp.output_linear.weight") and not config.num_local_experts:
            out[block.replace("shared_mlp.output_linear", "ffn_down")] = tensor
        elif name.endswith("experts.gate_up_proj"):
            stem = name.removesuffix(".gate_up_proj").replace("block_sparse_moe", "mlp")
            gate, up = tensor.chunk(2, -2)
            out |= {f"{stem}.gate_proj.weight": gate, f"{stem}.up_proj.weight": up}
        elif name.endswith("experts.down_proj"):
            out[f"{name.replace('block_sparse_moe', 'mlp')}.weight"] = tensor
        elif "block_sparse_moe.router" in name:
            out[name.replace("router", "router.layer")] = tensor
        elif "q_proj" in name or "k_proj" in name:
            heads = "num_attention_heads" if "q_proj" in name else "num_key_value_heads"
            halves = tensor.view(getattr(config, heads), 2, -1, tensor.shape[1])
            out[name] = halves.swapaxes(1, 2).reshape(tensor.shape)
        else:
            out |= _mamba2(name, tensor, config.mamba_n_groups)
    return out


def _falcon_h1(config: Any, state: State) -> State:
    inner, groups = config.mamba_d_ssm, config.mamba_n_groups
    shared = groups * config.mamba_d_state
    sizes = torch.tensor([inner, inner, shared, shared, config.mamba_n_heads])
    gate, down = config.mlp_multipliers
    factors = {
        "down_proj": down,
        "gate_proj": gate,
        "k_proj": config.key_multiplier * config.attention_in_multiplier,
        "q_proj": config.attention_in_multiplier,
        "v_proj": config.attention_in_multiplier,
        "o_proj": config.attention_out_multiplier,
        "out_proj": config.ssm_out_multiplier,
        "in_proj": torch.tensor(config.ssm_multipliers).repeat_interleave(sizes)[:, None]
        * config.ssm_in_multiplier,
        "lm_head": config.lm_head_multiplier,
        "embed_tokens": config.embedding_multiplier,
    }
    out: State = {}
    for name, tensor in state.items():
        module = name.split(".")[-2]
        factor = factors.get(module, 1.0) if name.endswith(".weight") else 1.0
        out |= _mamba2(name, tensor * factor, groups)
    return out


def _nemotron_h(config: Any, state: State) -> State:
    out: State = {}
    for hub_name, tensor in state.items():
        name = hub_name.replace("model.", "backbone.", 1)
        if "q_proj" in name or "k_proj" in name:
            heads = "num_attention_heads" if "q_proj" in name else "num_key_value_heads"
            halves = tensor.view(getattr(config, heads), 2, -1, tensor.shape[1])
            out[name] = halves.swapaxes(1, 2).reshape(tensor.shape)
        elif "mixer.experts." in name:
            stem = name.replace("backbone.", "model.").replace("mixer.experts", "mlp.experts")
            out[f"{stem}.weight"] = tensor
        elif name.endswith("e_score_correction_bias"):
            out[name.replace("_correction_bias", "_correction.bias")] = tensor
        else:
            out |= _mamba2(name, tensor, config.n_groups)
    return out


def _jamba(config: Any, state: State) -> State:
    out: State = {}
    for name, tensor in state.items():
        if name.endswith("experts.gate_up_proj"):
            stem = name.removesuffix(".gate_up_proj").replace("feed_forward", "mlp")
            gate, up = tensor.chunk(2, -2)
            out |= {f"{stem}.gate_proj.weight": gate, f"{stem}.up_proj.weight": up}
        elif name.endswith("experts.down_proj"):
            out[f"{name.replace('feed_forward', 'mlp')}.weight"] = tensor
        elif name.endswith("conv1d.weight"):
            out[name] = tensor.squeeze()
        elif name.endswith(".A_log"):
            out[name] = -tensor.exp()
        else:
            out[name] = tensor
    return out


def _kimi_linear(config: Any, state: State) -> State:
    heads, key_size = config.num_attention_heads, config.qk_nope_head_dim
    names = {
        "forget_gate.A_log": "ssm_a",
        "forget_gate.dt_bias": "ssm_dt.bias",
        "mlp.gate.e_score_correction_bias": "exp_probs_b.bias",
    }
    out: State = {}
    for name, tensor in state.items():
        block = ".".join(name.replace("model.layers.", "blk.").split(".")[:2])
        if name.endswith("conv1d.weight"):
            for letter, part in zip("qkv", tensor.chunk(3), strict=True):
                size = len(part)
                out[f"{block}.ssm_conv1d_{letter}.weight"] = part.reshape(1, size, 1, -1)
        elif "kv_b_proj" in name:
            by_head = tensor.view(heads, -1, tensor.shape[-1])
            out[f"{block}.attn_k_b.weight"] = by_head[:, :key_size].transpose(1, 2)
            out[f"{block}.attn_v_b.weight"] = by_head[:, key_size:]
        elif name.endswith("experts.gate_up_proj"):
            gate, up = tensor.chunk(2, -2)
            out |= {f"{block}.ffn_gate_exps.weight": gate, f"{block}.ffn_up_exps.weight": up}
        elif name.endswith("experts.down_proj"):
            out[f"{block}.ffn_down_exps.weight"] = tensor
        elif (end := next((e for e in names if name.endswith(e)), None)) is not None:
            out[f"{block}.{names[end]}"] = -tensor.exp() if end.endswith("A_log") else tensor
        else:
            out[name.replace("forget_gate.", "")] = tensor
    return out


def _mamba2(name: str, tensor: Tensor, groups: int) -> State:
    if name.endswith(".dt_bias"):
        return {name.replace(".dt_bias", ".dt_proj.bias"): tensor}
    if name.endswith("conv1d.weight"):
        return {name: tensor.squeeze()}
    if name.endswith(".A_log"):
        return {name: -tensor.exp()[:, None]}
    if name.endswith((".mamba.D", ".mixer.D")):
        return {name: tensor[:, None]}
    if name.endswith((".mamba.norm.weight", ".mixer.norm.weight")):
        return {name: tensor.view(groups, -1)}
    return {name: tensor}


REWRITTEN: Mapping[str, Callable[[Any, State], State]] = {
    "gemma3n": _gemma3n,
    "gemma4": _gemma4,
    "granitehybrid": _granite_hybrid,
    "falcon-h1": _falcon_h1,
    "nemotron_h": _nemotron_h,
    "nemotron_h_moe": _nemotron_h,
    "jamba": _jamba,
    "kimi-linear": _kimi_linear,
    "qwen3next": _qwen3next,
    "qwen3next-joined": _joined_qwen3next,
    "qwen35": _qwen35,
    "qwen35moe": _qwen35,
}
