"""GGUF files of small models without meaning, of every architecture that is read by rules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import gguf
import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM

_SIZES = {
    "vocab_size": 71,
    "block_count": 3,
    "embedding_length": 64,
    "context_length": 256,
    "feed_forward_length": 48,
    "attention.head_count": 4,
    "attention.head_count_kv": 2,
}
_EXPERTS = {"expert_count": 2, "expert_used_count": 1}
_KEY_LENGTH = {"attention.key_length": 8}
_WINDOW = {**_KEY_LENGTH, "attention.sliding_window": 6}
ARCHITECTURES: dict[str, Mapping[str, int]] = {
    "llama": {**_SIZES, "rope.dimension_count": 16},
    "qwen2": _SIZES,
    "qwen2moe": {**_SIZES, **_EXPERTS},
    "qwen3": {**_SIZES, "attention.key_length": 128},
    "qwen3moe": {**_SIZES, **_EXPERTS, **_KEY_LENGTH},
    "phi3": _SIZES,
    "gemma2": {**_SIZES, **_WINDOW},
    "gemma3": {**_SIZES, **_WINDOW, "block_count": 7},
    "stablelm": _SIZES,
    "starcoder2": _SIZES,
    "falcon": _SIZES,
    "bloom": _SIZES,
    "gpt2": _SIZES,
}
_Array = np.ndarray[tuple[int, ...], np.dtype[np.float32]]


def write_family_gguf(path: Path, architecture: str, *, tied: bool = False) -> None:
    """Write a file whose tensors have the shapes that transformers gives the model it reads."""
    output = np.zeros((1, 1), np.float32)
    _write(path, architecture, {} if tied else {"output.weight": output})
    config = AutoConfig.from_pretrained(path.parent, gguf_file=path.name)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    blocks = ARCHITECTURES[architecture]["block_count"]
    kind = next(k for k, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(kind, blocks)
    tensors = {}
    for name, parameter in model.named_parameters():
        for part, shape in _parts(name, tuple(parameter.shape)):
            candidates = (part, part.removeprefix("transformer."))
            found = (names.get_name(c, try_suffixes=(".weight", ".bias")) for c in candidates)
            target = next((t for t in found if t is not None), None)
            assert target is not None or part == "lm_head.weight", part
            tensors[target or "output.weight"] = np.zeros(shape, np.float32)
    _write(path, architecture, tensors)


def _parts(name: str, shape: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield a parameter's pieces in a file: experts' gates and inputs lie apart there."""
    if "experts.gate_up_proj" in name:
        for piece in ("gate_proj", "up_proj"):
            apart = f"{name.replace('gate_up_proj', piece)}.weight"
            yield apart, (shape[0], shape[1] // 2, *shape[2:])
    elif "experts.down_proj" in name:
        yield f"{name}.weight", shape
    else:
        yield name, shape


def _write(path: Path, architecture: str, tensors: Mapping[str, _Array]) -> None:
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name("small")
    writer.add_pad_token_id(0)
    writer.add_float32(f"{architecture}.attention.layer_norm_rms_epsilon", 1e-6)
    for key, value in ARCHITECTURES[architecture].items():
        writer.add_uint32(f"{architecture}.{key}", value)
    for name, values in tensors.items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
