"""Linear layers as plain PyTorch, with weights in groups, in blocks or dense; see `reference`."""

from __future__ import annotations

from torch import Tensor

from streamingllm.kernels.blocks import FORMATS, from_tiles, to_tiles
from streamingllm.kernels.ggml_blocks import read_blocks
from streamingllm.kernels.packing import unpack_weight


def quantized_linear(x: Tensor, codes: Tensor, scales: Tensor, minimums: Tensor | None) -> Tensor:
    """Multiply activations with quantised weights.

    Args:
        x: [..., in_features].
        codes: see `packing.PackedWeight`.
        scales: see `packing.PackedWeight`.
        minimums: see `packing.PackedWeight`.

    Returns:
        [..., out_features], in the dtype of x.
    """
    weight = unpack_weight(codes, scales, minimums)
    return (x.float() @ weight.mT).to(x.dtype)


def pack_blocks(rows: Tensor, format: int, in_features: int, order: Tensor | None) -> Tensor:
    """Lay out rows of a GGUF file as tiles.

    Args:
        rows: uint8, [out_features, bytes of a row].
        format: a ggml type of `blocks.FORMATS`.
        in_features: columns of the weight.
        order: int64, [out_features]: which row of the file each row of the weight is; None for
            the file's own order.

    Returns:
        uint8, [out_features / 16 rounded up, bytes of a tile]; see `blocks`.
    """
    kind = FORMATS[format]
    rows = rows if order is None else rows[order]
    return to_tiles(kind, read_blocks(rows, kind))


def block_linear(x: Tensor, blocks: Tensor, format: int, out_features: int) -> Tensor:
    """Multiply activations with weights in the bits of a GGUF file.

    Args:
        x: [..., in_features].
        blocks: what `pack_blocks` returns.
        format: a ggml type of `blocks.FORMATS`.
        out_features: rows of the weight.

    Returns:
        [..., out_features], in the dtype of x.
    """
    weight = from_tiles(FORMATS[format], blocks, out_features, x.shape[-1])
    return (x.float() @ weight.mT).to(x.dtype)


def block_rows(
    ids: Tensor, blocks: Tensor, format: int, out_features: int, in_features: int
) -> Tensor:
    """Return rows of a weight in the bits of a GGUF file, as an embedding does.

    Args:
        ids: int64, of any shape; each at least 0 and less than `out_features`.
        blocks: what `pack_blocks` returns.
        format: a ggml type of `blocks.FORMATS`.
        out_features: rows of the weight.
        in_features: its columns.

    Returns:
        float32, [..., in_features].
    """
    return from_tiles(FORMATS[format], blocks, out_features, in_features)[ids]


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """Multiply a few activations [..., in_features] with weights [out_features, in_features]."""
    return (x.float() @ weight.float().mT).to(x.dtype)
