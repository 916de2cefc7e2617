"""Count a model's weights by their types."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from torch import nn

from streamingllm.models.block_layers import BlockEmbedding
from streamingllm.models.packed_linear import PackedLinear


def num_parameters(model: nn.Module) -> int:
    """Return how many parameters a model has, packed ones included and tied ones once."""
    return _counts(model).total()


def weight_types(model: nn.Module) -> dict[str, float]:
    """Return the types of a model's weights and the share of the parameters that each has."""
    counts = _counts(model)
    return {kind: counts[kind] / counts.total() for kind in sorted(counts)}


def _counts(model: nn.Module) -> Counter[str]:
    counts: Counter[str] = Counter()
    for parameter in model.parameters():
        counts[str(parameter.dtype).removeprefix("torch.")] += parameter.numel()
    for kind, count in _packed(model):
        counts[kind] += count
    return counts


def _packed(model: nn.Module) -> Iterator[tuple[str, int]]:
    """Yield type and number of packed weights, those that layers share once."""
    seen: set[int] = set()
    for module in model.modules():
        if isinstance(module, PackedLinear):
            where = next(iter(module.parts().values())).data_ptr()
            kind, count = module.weight_type, module.out_features * module.in_features
        elif isinstance(module, BlockEmbedding):
            where = module.blocks.data_ptr()
            kind, count = module.format.name, module.num_embeddings * module.embedding_dim
        else:
            continue
        if where not in seen:
            yield kind, count
        seen.add(where)
