"""Layers with weights in the bits of a GGUF file."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Mapping, Sequence

import torch
from torch import Tensor, nn

from streamingllm.kernels.blocks import BlockFormat, from_tiles
from streamingllm.kernels.operators import block_linear, block_rows
from streamingllm.models.packed_linear import PackedLinear


class BlockLinear(PackedLinear):
    """A linear layer with weights in blocks; see `kernels.blocks`.

    Args:
        blocks: what `pack_blocks` returns.
        format: the type of the blocks.
        in_features: columns of the weight.
        out_features: rows of the weight.
        bias: [out_features], or None.
    """

    part_names = ("blocks",)
    blocks: Tensor

    def __init__(
        self,
        blocks: Tensor,
        format: BlockFormat,
        in_features: int,
        out_features: int,
        bias: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.register_buffer("blocks", blocks)
        self.format, self.in_features, self.out_features = format, in_features, out_features
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    @property
    def weight(self) -> Tensor:
        """The weights that the blocks stand for, float32, [out_features, in_features]."""
        return from_tiles(self.format, self.blocks, self.out_features, self.in_features)

    @property
    def weight_type(self) -> str:
        """Name the type of the blocks."""
        return self.format.name

    @property
    def layout(self) -> Hashable:
        """Name the type of the blocks and the columns of the weight."""
        return self.format.name, self.in_features

    def multiply(self, x: Tensor, parts: Mapping[str, Tensor], out_features: int) -> Tensor:
        """Multiply activations with weights of this layout; see `PackedLinear.multiply`."""
        out: Tensor = block_linear(x, parts["blocks"], self.format.ggml_type, out_features)
        return out

    def extra_repr(self) -> str:
        """Describe the layer as `nn.Linear` does."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"type={self.format.name}"
        )


class ReorderedBlockLinear(BlockLinear):
    """A linear layer whose blocks hold its columns in another order, which activations take too.

    Args:
        layer: of the blocks.
        order: LongTensor [in_features], which column of the blocks is each column of the weight.
    """

    order: Tensor
    inverse: Tensor

    def __init__(self, layer: BlockLinear, order: Tensor) -> None:
        super().__init__(
            layer.blocks, layer.format, layer.in_features, layer.out_features, layer.bias
        )
        self.register_buffer("order", order)
        self.register_buffer("inverse", order.argsort())

    @property
    def weight(self) -> Tensor:
        """The weights that the blocks stand for, float32, [out_features, in_features]."""
        return super().weight[:, self.order]

    @property
    def layout(self) -> Hashable:
        """Name the layer itself: no other layer is sure to have its order."""
        return id(self)

    def multiply(self, x: Tensor, parts: Mapping[str, Tensor], out_features: int) -> Tensor:
        """Multiply activations with these weights; see `PackedLinear.multiply`."""
        return super().multiply(x[..., self.inverse], parts, out_features)


class JoinedLinear(nn.Module):
    """A linear layer whose rows are those of several layers, one after the other.

    Args:
        layers: with the same columns, without biases; each has blocks of its own type.
    """

    def __init__(self, layers: Sequence[BlockLinear]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.in_features = layers[0].in_features
        self.out_features = sum(layer.out_features for layer in layers)

    @property
    def weight(self) -> Tensor:
        """The weights that the blocks stand for, float32, [out_features, in_features]."""
        return torch.cat([layer.weight for layer in self.layers if isinstance(layer, BlockLinear)])

    def forward(self, x: Tensor) -> Tensor:
        """Multiply activations [..., in_features]."""
        return torch.cat([layer(x) for layer in self.layers], -1)


class BlockEmbedding(nn.Module):
    """An embedding with weights in blocks.

    Args:
        blocks: what `pack_blocks` returns.
        format: the type of the blocks.
        num_embeddings: rows of the weight.
        embedding_dim: columns of the weight.
        scale: what rows are multiplied with, in the dtype of the output.
    """

    blocks: Tensor
    scale: Tensor

    def __init__(
        self,
        blocks: Tensor,
        format: BlockFormat,
        num_embeddings: int,
        embedding_dim: int,
        scale: Tensor,
    ) -> None:
        super().__init__()
        self.register_buffer("blocks", blocks)
        self.register_buffer("scale", scale)
        self.format, self.num_embeddings = format, num_embeddings
        self.embedding_dim = embedding_dim

    @property
    def weight(self) -> Tensor:
        """The weights that the blocks stand for, in the dtype of the output."""
        weight = from_tiles(self.format, self.blocks, self.num_embeddings, self.embedding_dim)
        return weight.to(self.scale.dtype)

    def forward(self, input: Tensor) -> Tensor:
        """Return the rows of token ids [...]: [..., embedding_dim]."""
        rows: Tensor = block_rows(
            input, self.blocks, self.format.ggml_type, self.num_embeddings, self.embedding_dim
        )
        return rows.to(self.scale.dtype) * self.scale

    def extra_repr(self) -> str:
        """Describe the layer as `nn.Embedding` does."""
        return f"{self.num_embeddings}, {self.embedding_dim}, type={self.format.name}"


def embedding_scale(embedding: nn.Embedding, dtype: torch.dtype) -> Tensor | None:
    """Return the number that an embedding multiplies its rows with; None if it does anything else.

    The layer is tried on rows of its own kind: some families scale them in `forward`.

    Args:
        embedding: whose weight may have no values.
        dtype: of the weight.
    """
    tried = copy.copy(embedding)
    rows = torch.tensor([[1.0] * embedding.embedding_dim, [-0.5] * embedding.embedding_dim])
    tried._parameters = {"weight": nn.Parameter(rows.to(dtype), requires_grad=False)}
    tried.padding_idx = None
    out = tried(torch.tensor([[0, 1]]))[0]
    scale = out[0, 0]
    return scale if torch.equal(out, rows.to(dtype) * scale) else None
