"""Read torchao: tensor subclasses flattened into safetensors, described in the file's metadata.

Source: https://github.com/pytorch/ao, prototype/safetensors and quantization/quantize_/workflows.
Tensor `layer._weight_NAME` is attribute NAME of the subclass that `layer.weight` was.
"""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import torch
from torch import Tensor

from streamingllm.models.formats.base import Settings, StoredTensor, refused
from streamingllm.models.formats.float8 import REASON, scale_blocks
from streamingllm.models.formats.stored import Grid, StoredWeight, Values
from streamingllm.models.shards import Shards


def torchao_weights(shards: Shards, settings: Settings) -> dict[str, StoredTensor]:
    """Find the weights of a torchao checkpoint; see `WeightFormat`."""
    if "tensor_names" not in shards.metadata:
        raise refused(
            shards.folder, "quant_method", "torchao", "has no tensor_names in its files' metadata"
        )
    found = {}
    for name in json.loads(shards.metadata["tensor_names"]):
        described: dict[str, Any] = json.loads(shards.metadata[name])
        kind = described.get("_type")
        if kind == "Tensor":
            continue
        if kind not in _READERS:
            raise refused(
                shards.folder, "quant_type", kind, f"is not among {', '.join(sorted(_READERS))}"
            )
        layer, _, attribute = name.rpartition(".")
        parts = {p: f"{layer}._{attribute}_{p}" for p in described["_tensor_data_names"]}
        if "act_pre_scale" in parts:
            raise refused(shards.folder, "quant_type", kind, "scales activations before products")
        read = partial(_read, shards, kind, parts)
        found[name] = StoredTensor(tuple(parts.values()), read, f"torchao {kind}")
    return found


def _read(shards: Shards, kind: str, parts: dict[str, str]) -> StoredWeight:
    stored: StoredWeight = _READERS[kind](**{p: shards.read(name) for p, name in parts.items()})
    return stored


def _whole(
    qdata: Tensor, scale: Tensor, zero_point: Tensor | None = None, **activations: Tensor
) -> StoredWeight:
    """Read 8-bit numbers (or fewer, unpacked); the zero point may be a whole float."""
    scales = scale.reshape(-1, 1) if scale.ndim < 2 else scale
    scales = scales.expand(len(qdata), -1)
    zeros = None
    if zero_point is not None:
        zeros = zero_point.round().to(torch.int32)
        if not torch.equal(zeros.to(zero_point.dtype), zero_point):
            centred = qdata.float().unflatten(1, (scales.shape[1], -1))
            point = zero_point.float().reshape(len(zero_point), -1, 1)
            return Values(
                ((centred - point) * scales.float()[..., None]).flatten(1),
                "its zero points are no whole numbers",
            )
        zeros = zeros.reshape(-1, scales.shape[1]).expand_as(scales)
    return Grid(qdata.to(torch.int32), scales, zeros)


def _nibbles(qdata: Tensor, scale: Tensor, zero_point: Tensor) -> StoredWeight:
    """Read signed 4-bit numbers, the even column in the low nibble; weight = scale * q + zero."""
    pairs = torch.stack((qdata & 15, (qdata >> 4) & 15), -1).flatten(1).to(torch.int32)
    codes = torch.where(pairs > 7, pairs - 16, pairs)
    offsets = None if not bool(zero_point.any()) else zero_point.mT.contiguous()
    return Grid(codes, scale.mT.contiguous(), offsets=offsets)


def _float8(qdata: Tensor, scale: Tensor) -> StoredWeight:
    return Values(scale_blocks(qdata.float(), scale.float()), REASON)


_READERS: dict[str, Any] = {
    "Int8Tensor": _whole,
    "IntxUnpackedToInt8Tensor": _whole,
    "Int4Tensor": _nibbles,
    "Float8Tensor": _float8,
}
