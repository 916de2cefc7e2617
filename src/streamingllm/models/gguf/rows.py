"""Orders of rows in which llama.cpp keeps projections otherwise than transformers.

Source: https://github.com/ggml-org/llama.cpp/blob/master/convert_hf_to_gguf.py.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from streamingllm.models.gguf.metadata import ArchitectureMetadata


def interleaved_queries(metadata: ArchitectureMetadata, num_rows: int) -> Tensor:
    """Return the rows of queries that llama.cpp rotates in pairs of neighbours.

    In the file, a row of the first half of a head is followed by that of the second half.

    Returns:
        LongTensor [num_rows]: which row of the file is each row of the parameter.
    """
    return _from_pairs(metadata.integer("attention.head_count"), num_rows)


def interleaved_keys(metadata: ArchitectureMetadata, num_rows: int) -> Tensor:
    """Return the rows of keys that llama.cpp rotates in pairs of neighbours."""
    return _from_pairs(metadata.num_kv_heads, num_rows)


def grouped_qkv(metadata: ArchitectureMetadata, num_rows: int) -> Tensor:
    """Return the rows of a fused projection, in which each group's keys follow its queries.

    In the file, all queries come first, then all keys, then all values.
    """
    groups, heads = metadata.num_kv_heads, metadata.integer("attention.head_count")
    rows = torch.arange(num_rows).reshape(heads + 2 * groups, -1)
    queries = rows[:heads].reshape(groups, heads // groups, -1)
    keys, values = rows[heads : heads + groups, None], rows[heads + groups :, None]
    return torch.cat([queries, keys, values], 1).flatten()


def stacked_qkv(metadata: ArchitectureMetadata, num_rows: int) -> Tensor:
    """Return the rows of a fused projection, in which each head has its query, key and value.

    In the file, all queries come first, then all keys, then all values.
    """
    shape = (3, metadata.integer("attention.head_count"), -1)
    return torch.arange(num_rows).reshape(shape).transpose(0, 1).flatten()


def tiled_values(metadata: ArchitectureMetadata, num_rows: int) -> Tensor:
    """Return the rows of heads of values that share a head of keys.

    In the file, the first value of each key comes before the second of any.
    """
    keys, values = metadata.integer("ssm.group_count"), metadata.integer("ssm.time_step_rank")
    shape = (values // keys, keys, num_rows // values)
    return torch.arange(num_rows).reshape(shape).transpose(0, 1).flatten()


def keys_then_tiled_values(metadata: ArchitectureMetadata, num_rows: int) -> Tensor:
    """Return the rows of queries, keys and values, of which the values alone are tiled."""
    num_others = 2 * metadata.integer("ssm.group_count") * metadata.integer("ssm.state_size")
    values = tiled_values(metadata, num_rows - num_others)
    return torch.cat([torch.arange(num_others), num_others + values])


def grouped_queries_keys_values(metadata: ArchitectureMetadata, num_rows: int) -> Tensor:
    """Return where rows go in a fused projection, in which a key's values and gates follow it.

    In the file, all queries come first, then all keys, then all values; gates are elsewhere.

    Returns:
        LongTensor [num_rows]: which row of the parameter is each row of the file.
    """
    groups, size = metadata.integer("ssm.group_count"), metadata.integer("ssm.state_size")
    shared = num_rows // groups - 2 * size
    rows = torch.arange(groups * (2 * size + 2 * shared)).reshape(groups, -1)
    parts = rows[:, :size], rows[:, size : 2 * size], rows[:, 2 * size : 2 * size + shared]
    return torch.cat([part.flatten() for part in parts])


def grouped_gates(metadata: ArchitectureMetadata, num_rows: int) -> Tensor:
    """Return where rows of gates go in a fused projection, in which each key's end its group."""
    groups, size = metadata.integer("ssm.group_count"), metadata.integer("ssm.state_size")
    shared = num_rows // groups
    rows = torch.arange(groups * (2 * size + 2 * shared)).reshape(groups, -1)
    return rows[:, -shared:].flatten()


def by_group(metadata: ArchitectureMetadata, parameter: Tensor) -> Tensor:
    """Return a parameter as the file has it, a view with a row for each group of channels."""
    return parameter.view(metadata.integer("ssm.group_count"), -1)


def _third(index: int, metadata: ArchitectureMetadata, parameter: Tensor) -> Tensor:
    return parameter.chunk(3)[index]


THIRDS: tuple[Callable[[ArchitectureMetadata, Tensor], Tensor], ...] = tuple(
    partial(_third, index) for index in range(3)
)
"""Views of the rows of queries, of keys and of values, where one parameter has all three."""


def mla_keys(metadata: ArchitectureMetadata, parameter: Tensor) -> Tensor:
    """Return the part of a latent projection that makes keys, turned as in the file.

    Args:
        metadata: of the file.
        parameter: [heads * (key + value), latent].

    Returns:
        A view, [heads, latent, key].
    """
    return _by_head(metadata, parameter)[:, : _plain_key_size(metadata)].transpose(1, 2)


def mla_values(metadata: ArchitectureMetadata, parameter: Tensor) -> Tensor:
    """Return the part of a latent projection that makes values, a view [heads, value, latent]."""
    return _by_head(metadata, parameter)[:, _plain_key_size(metadata) :]


def _by_head(metadata: ArchitectureMetadata, parameter: Tensor) -> Tensor:
    heads = metadata.integer("attention.head_count")
    return parameter.view(heads, -1, parameter.shape[-1])


def _plain_key_size(metadata: ArchitectureMetadata) -> int:
    whole = metadata.integer("attention.key_length_mla")
    return whole - metadata.integer("rope.dimension_count")


def _from_pairs(num_heads: int, num_rows: int) -> Tensor:
    shape = (num_heads, num_rows // num_heads // 2, 2)
    return torch.arange(num_rows).reshape(shape).transpose(1, 2).flatten()
