"""The weights of a GGUF file in their own bits, in a model of transformers."""

from __future__ import annotations

import mmap
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from streamingllm.kernels import native
from streamingllm.kernels.blocks import FORMATS
from streamingllm.kernels.operators import pack_blocks
from streamingllm.models.block_layers import (
    BlockEmbedding,
    BlockLinear,
    JoinedLinear,
    ReorderedBlockLinear,
    embedding_scale,
)
from streamingllm.models.gguf.header import GgufHeader, GgufTensor
from streamingllm.models.gguf.names import TensorTarget, tensor_targets, unstacked
from streamingllm.models.gguf.weights import check_complete, dequantised, mapped, shaped
from streamingllm.models.progress import Progress
from streamingllm.models.skeleton import build_skeleton


def read_native_weights(
    header: GgufHeader, config: PreTrainedConfig, dtype: torch.dtype, progress: Progress
) -> PreTrainedModel:
    """Build a model that computes with the weights of a file in their own bits.

    Linear layers and the embedding keep their blocks. All else is dequantised: normalisations,
    biases, and experts that a family holds in one parameter.

    Args:
        header: of all files of the model.
        config: of the model.
        dtype: of all that is dequantised, and of activations.
        progress: told about the stage "read", in bytes of the files.

    Raises:
        ModelLoadError: a parameter is missing, has another shape, or is of a type that cannot be
            read.
    """
    native.load()
    model = build_skeleton(config, dtype)
    header = unstacked(header)
    targets = tensor_targets(header)
    check_complete(header, targets, model)
    total, done = sum(tensor.num_bytes for tensor in header.tensors), 0
    with mapped(header) as contents:
        for tensors in _by_layer(header, targets):
            if len(tensors) > 1:
                _place_joined(model, tensors, targets, contents)
            elif (target := targets.get(tensors[0].name)) is not None:
                _place(model, tensors[0], target, contents[tensors[0].path])
            for tensor in tensors:
                _let_go(contents[tensor.path], tensor)
                done += tensor.num_bytes
                progress("read", done, total)
    _share_tied(model)
    model.eval()
    return model


def _by_layer(header: GgufHeader, targets: dict[str, TensorTarget]) -> list[list[GgufTensor]]:
    """Return the tensors of a file one by one, those together whose blocks make up one layer."""
    tensors: dict[str, list[GgufTensor]] = {}
    for tensor in header.tensors:
        target = targets.get(tensor.name)
        is_part = target is not None and target.is_rows_of_linear
        name = target.name if target is not None and is_part else tensor.name
        tensors.setdefault(name, []).append(tensor)
    layers: list[list[GgufTensor]] = []
    for parts in tensors.values():
        has_blocks = all(tensor.ggml_type.number in FORMATS for tensor in parts)
        layers += [parts] if has_blocks else [[tensor] for tensor in parts]
    return layers


def _place_joined(
    model: PreTrainedModel,
    tensors: list[GgufTensor],
    targets: dict[str, TensorTarget],
    contents: dict[Path, mmap.mmap],
) -> None:
    """Put a layer in place whose rows the file has in several tensors."""
    ordered = sorted(tensors, key=lambda tensor: targets[tensor.name].place.part[0])
    name = targets[ordered[0].name].name.removesuffix(".weight")
    module = model.get_submodule(name)
    assert isinstance(module, nn.Linear)
    columns, rows = module.in_features, module.out_features // len(ordered)
    layers = [
        BlockLinear(
            _blocks(tensor, targets[tensor.name], rows, columns, contents[tensor.path]),
            FORMATS[tensor.ggml_type.number],
            columns,
            rows,
        )
        for tensor in ordered
    ]
    _replace(model, name, JoinedLinear(layers))


def _replace(model: PreTrainedModel, name: str, layer: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, layer)


def _place(
    model: PreTrainedModel, tensor: GgufTensor, target: TensorTarget, content: mmap.mmap
) -> None:
    parent_name, _, name = target.name.rpartition(".")
    module = model.get_submodule(parent_name)
    layer = None
    if name == "weight" and target.keeps_values and tensor.ggml_type.number in FORMATS:
        layer = _packed_layer(module, tensor, target, content)
    if layer is not None:
        _replace(model, parent_name, layer)
        return
    held: Tensor = getattr(module, name)  # a parameter, or a buffer that is kept with them
    if held.is_meta:
        held = torch.empty_like(held, device="cpu")
        is_parameter = name in module._parameters
        setattr(module, name, nn.Parameter(held, requires_grad=False) if is_parameter else held)
    values = dequantised(tensor, content)
    with torch.no_grad():
        target.fill(held, shaped(tensor, values, target.stored_shape(held, len(values))))


def _packed_layer(
    module: nn.Module, tensor: GgufTensor, target: TensorTarget, content: mmap.mmap
) -> nn.Module | None:
    """Return a layer that computes with the blocks of a tensor; None if there is none for it."""
    format = FORMATS[tensor.ggml_type.number]
    if type(module) is nn.Linear:
        rows, columns = module.out_features, module.in_features
        blocks = _blocks(tensor, target, rows, columns, content)
        layer = BlockLinear(blocks, format, columns, rows, _without_values(module.bias))
        order = target.column_order(columns)
        is_sorted = order is None or bool((order.diff() == 1).all())
        return layer if order is None or is_sorted else ReorderedBlockLinear(layer, order)
    if isinstance(module, nn.Embedding):
        scale = embedding_scale(module, module.weight.dtype)
        if scale is None:
            return None
        rows, columns = module.num_embeddings, module.embedding_dim
        return BlockEmbedding(
            _blocks(tensor, target, rows, columns, content), format, rows, columns, scale
        )
    return None


def _without_values(bias: nn.Parameter | None) -> Tensor | None:
    return None if bias is None else bias.detach()


def _blocks(
    tensor: GgufTensor, target: TensorTarget, rows: int, columns: int, content: mmap.mmap
) -> Tensor:
    shaped(tensor, torch.empty(tensor.shape, device="meta"), torch.Size((rows, columns)))
    raw = torch.frombuffer(content, dtype=torch.uint8, count=tensor.num_bytes, offset=tensor.offset)
    packed: Tensor = pack_blocks(
        raw.view(rows, -1), tensor.ggml_type.number, columns, target.row_order(rows)
    )
    return packed


def _let_go(content: mmap.mmap, tensor: GgufTensor) -> None:
    """Let the pages of a tensor leave the memory of this process."""
    start = tensor.offset // mmap.PAGESIZE * mmap.PAGESIZE
    content.madvise(mmap.MADV_DONTNEED, start, tensor.offset + tensor.num_bytes - start)


def _share_tied(model: PreTrainedModel) -> None:
    """Let a head without weights of its own compute with the blocks of the embedding."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if not isinstance(head, nn.Linear) or not head.weight.is_meta:
        return
    if isinstance(embedding, BlockEmbedding):
        columns, rows = embedding.embedding_dim, embedding.num_embeddings
        shared = BlockLinear(embedding.blocks, embedding.format, columns, rows, head.bias)
        model.set_output_embeddings(shared)
    else:
        model.tie_weights()
