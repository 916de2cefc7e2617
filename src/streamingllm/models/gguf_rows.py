"""Orders of rows in which llama.cpp keeps projections otherwise than transformers.

Source: https://github.com/ggml-org/llama.cpp/blob/master/convert_hf_to_gguf.py.
"""

from __future__ import annotations

import torch
from torch import Tensor

from streamingllm.models.gguf_metadata import ArchitectureMetadata


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
