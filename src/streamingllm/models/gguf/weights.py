"""The weights of a GGUF file as plain numbers, in a model of transformers."""

from __future__ import annotations

import mmap
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from streamingllm.errors import ModelLoadError
from streamingllm.models.gguf.header import GgufHeader, GgufTensor
from streamingllm.models.gguf.names import TensorTarget, tensor_targets, unstacked


def read_gguf_weights(
    header: GgufHeader, config: PreTrainedConfig, dtype: torch.dtype
) -> PreTrainedModel:
    """Build a model and fill it with the dequantised weights of a file, one tensor at a time.

    Args:
        header: of all files of the model.
        config: of the model.
        dtype: of the weights in memory; blocks are dequantised in float32 before.

    Raises:
        ModelLoadError: a parameter is missing, has another shape, or is of a type that cannot be
            dequantised.
    """
    with torch.device("meta"):
        outline: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=dtype)
    shapes = {name: tensor.shape for name, tensor in outline.state_dict().items()}
    header = unstacked(header)
    targets = tensor_targets(header)
    check_complete(header, targets, outline)
    weights = {
        name: torch.empty(shapes[name], dtype=dtype)
        for name in {target.name for target in targets.values()}
    }
    with mapped(header) as contents:
        for tensor in header.tensors:
            if (target := targets.get(tensor.name)) is None:
                continue
            parameter = weights[target.name]
            values = dequantised(tensor, contents[tensor.path])
            shape = target.stored_shape(parameter, len(values))
            target.fill(parameter, shaped(tensor, values, shape))
    model: PreTrainedModel = type(outline).from_pretrained(
        None, config=config, state_dict=weights, dtype=dtype
    )
    return model


def dequantised(tensor: GgufTensor, content: mmap.mmap) -> Tensor:
    """Return the values of a tensor, float32, in the shape that the file states.

    Args:
        tensor: of a file.
        content: of that file.

    Raises:
        ModelLoadError: its type cannot be dequantised.
    """
    import gguf
    import numpy as np

    raw = np.frombuffer(content, np.uint8, tensor.num_bytes, tensor.offset)
    kind = gguf.GGMLQuantizationType(tensor.ggml_type.number)
    try:
        rows = raw.reshape(*tensor.shape[:-1], -1)
        values = gguf.dequantize(rows.view(_plain_numbers(kind.name)), kind)
    except NotImplementedError as error:
        raise ModelLoadError(
            f"{tensor.path}: tensor {tensor.name!r} has the type {tensor.ggml_type.name}, which "
            "cannot be dequantised; choose a file in another type"
        ) from error
    return torch.from_numpy(np.array(values, np.float32)).reshape(tensor.shape)


def _plain_numbers(name: str) -> str:
    return {"F32": "<f4", "F16": "<f2"}.get(name, "u1")


def shaped(tensor: GgufTensor, values: Tensor, shape: torch.Size) -> Tensor:
    """Return values in a shape that differs from the file's in dimensions of one entry only.

    Raises:
        ModelLoadError: it differs in others.
    """
    if tuple(d for d in values.shape if d > 1) != tuple(d for d in shape if d > 1):
        raise ModelLoadError(
            f"{tensor.path}: tensor {tensor.name!r} has the shape {list(values.shape)} instead "
            f"of {list(shape)}; fetch the file again"
        )
    return values.reshape(shape)


def check_complete(
    header: GgufHeader, targets: dict[str, TensorTarget], outline: PreTrainedModel
) -> None:
    """Refuse a file that has not all parameters of a model, or has others.

    Raises:
        ModelLoadError: it is so.
    """
    shapes = outline.state_dict()
    found = Counter(target.name for target in targets.values())
    counts = {target.name: target.place.part[1] for target in targets.values()}
    tied = outline.all_tied_weights_keys if outline.config.tie_word_embeddings else {}
    missing = sorted(name for name in shapes if found[name] < counts.get(name, 1))
    missing = [name for name in missing if name not in tied]
    if missing:
        raise ModelLoadError(
            f"{header.path}: {len(missing)} weights of {type(outline).__name__} are missing, such "
            f"as {missing[0]}; fetch the file again"
        )
    unknown = sorted(set(counts) - set(shapes))
    if unknown:
        raise ModelLoadError(
            f"{header.path}: has {len(unknown)} weights that {type(outline).__name__} has not, "
            f"such as {unknown[0]}; choose another file"
        )


@contextmanager
def mapped(header: GgufHeader) -> Iterator[dict[Path, mmap.mmap]]:
    """Map the files of a model into memory for the body; what is written there stays there."""
    with ExitStack() as stack:
        contents = {}
        for path in {tensor.path for tensor in header.tensors}:
            file = stack.enter_context(path.open("rb"))
            contents[path] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        yield contents
