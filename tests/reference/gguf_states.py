"""Weights of a model as llama.cpp's converter writes them, from its published rules.

Source: https://github.com/ggml-org/llama.cpp/blob/master/convert_hf_to_gguf.py, `modify_tensors`.
"""

from __future__ import annotations

from collections.abc import Iterator

import gguf
import torch
from torch import Tensor
from transformers import PreTrainedModel

from tests.reference.gguf_rewritten_states import REWRITTEN

PERMUTED = (
    "mistral3",
    "llama",
    "internlm2",
    "xverse",
    "arcee",
    "smollm3",
    "granite",
    "granitemoe",
    "olmo",
)
SHIFTED = ("gemma", "gemma2", "gemma3", "nemotron")


def gguf_tensors(model: PreTrainedModel, architecture: str, case: str) -> dict[str, Tensor]:
    """Return a model's weights by their names in a file, in the layout of a file.

    Args:
        model: of the architecture.
        architecture: in llama.cpp's spelling.
        case: of the architecture, which may have a layout of its own.
    """
    number = {name: kind for kind, name in gguf.MODEL_ARCH_NAMES.items()}[architecture]
    names = gguf.get_tensor_name_map(number, model.config.num_hidden_layers)
    tensors: dict[str, Tensor] = {}
    state = dict(model.state_dict())
    if model.config.tie_word_embeddings:
        state.pop("lm_head.weight")
    for part, values in _parts(model, architecture, case, state):
        candidates = (part, part.removeprefix("transformer."), f"model.{part}")
        found = (names.get_name(c, try_suffixes=(".weight", ".bias")) for c in candidates)
        is_named = part.startswith("blk.")  # as in the file already
        target = part if is_named else next((t for t in found if t is not None), None)
        assert target is not None, f"{architecture}: {part}"
        tensors[target] = values.contiguous()
    return tensors


def _parts(
    model: PreTrainedModel, architecture: str, case: str, state: dict[str, Tensor]
) -> Iterator[tuple[str, Tensor]]:
    floats = {name: tensor.float() for name, tensor in state.items()}
    rewrite = REWRITTEN.get(case, REWRITTEN.get(architecture))
    if rewrite is not None:
        yield from rewrite(model.config, floats).items()
        return
    for hub_name, tensor in floats.items():
        name = hub_name.replace("block_sparse_moe.experts", "mlp.experts")
        yield from _converted(model, architecture, name, tensor)


def _converted(
    model: PreTrainedModel, architecture: str, name: str, tensor: Tensor
) -> Iterator[tuple[str, Tensor]]:
    config = model.config
    heads = config.num_attention_heads
    if architecture in PERMUTED and ("q_proj" in name or "k_proj" in name):
        groups = heads if "q_proj" in name else config.num_key_value_heads
        yield name, _permuted(tensor, groups)
    elif architecture in SHIFTED and name.endswith("norm.weight"):
        yield name, tensor + 1
    elif ".experts.gate_up_proj" in name:
        yield from _gates(architecture, name, tensor)
    elif ".experts.down_proj" in name:
        turned = architecture == "gpt-oss" and not name.endswith("bias")
        ending = ".bias" if name.endswith("bias") else ".weight"
        yield name.removesuffix("_bias") + ending, tensor.mT if turned else tensor
    elif "block_sparse_moe.router" in name:
        yield name.replace("router", "router.layer"), tensor
    elif name.endswith("shared_expert_gate.weight"):
        yield name, tensor[0]
    elif name.endswith("e_score_correction_bias"):
        yield name.replace("_correction_bias", "_correction.bias"), tensor
    elif name.endswith(".expert_bias"):
        yield f"{name}.bias", tensor
    elif name.endswith("conv.conv.weight"):
        yield name, tensor.squeeze(1)
    elif "kv_b_proj" in name:
        by_head = tensor.view(heads, -1, tensor.shape[-1])
        keys, values = by_head.split([config.qk_nope_head_dim, config.v_head_dim], 1)
        yield name.replace("kv_b_proj", "k_b_proj"), keys.transpose(1, 2)
        yield name.replace("kv_b_proj", "v_b_proj"), values
    elif "query_key_value" in name and architecture in ("gptneox", "bloom"):
        by_head = tensor.reshape(heads, 3, -1, *tensor.shape[1:])
        yield name, torch.cat([by_head[:, i].flatten(0, 1) for i in range(3)])
    elif "query_key_value" in name:
        groups = config.num_kv_heads if config.new_decoder_architecture else 1
        by_group = tensor.view(groups, heads // groups + 2, -1, tensor.shape[-1])
        parts = by_group[:, :-2], by_group[:, [-2]], by_group[:, [-1]]
        yield name, torch.cat([part.flatten(0, 2) for part in parts])
    elif name.endswith("self_attn.sinks"):
        yield f"{name}.weight", tensor
    elif architecture == "gpt2" and tensor.ndim == 2 and ".h." in name:
        yield name, tensor.T
    else:
        yield name, tensor


def _permuted(tensor: Tensor, heads: int) -> Tensor:
    halves = tensor.reshape(heads, 2, tensor.shape[0] // heads // 2, *tensor.shape[1:])
    return halves.swapaxes(1, 2).reshape(tensor.shape)


def _gates(architecture: str, name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    ending = ".bias" if name.endswith("bias") else ".weight"
    stem = name.removesuffix("_bias")
    if architecture != "gpt-oss":
        parts = list(tensor.chunk(2, -2))
    else:
        columns = tensor[..., ::2], tensor[..., 1::2]
        parts = [part if ending == ".bias" else part.mT for part in columns]
    for piece, values in zip(("gate_proj", "up_proj"), parts, strict=True):
        yield stem.replace("gate_up_proj", piece) + ending, values
