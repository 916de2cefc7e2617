"""Read compressed-tensors: numbers packed along rows, 8-bit numbers as they are, or FP8.

Source: https://github.com/vllm-project/compressed-tensors. `weight_packed` int32
[out_features, in_features * bits / 32] holds codes plus half their range. So does
`weight_zero_point`, int32 [out_features * bits / 32, groups]. `weight_scale` is
[out_features, groups], `weight_shape` [2]. Unpacked formats keep `weight` in int8 or FP8.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from streamingllm.models.formats.base import Settings, StoredTensor, refused
from streamingllm.models.formats.bits import unpack_dense
from streamingllm.models.formats.float8 import read_float8
from streamingllm.models.formats.stored import Grid, StoredWeight
from streamingllm.models.shards import Shards

_FORMATS = ("dense", "pack-quantized", "int-quantized", "float-quantized", "naive-quantized")
_PARTS = ("weight_scale", "weight_zero_point", "weight_shape", "weight_g_idx")
_IGNORED = ("input_scale", "input_zero_point", "output_scale", "output_zero_point")


def compressed_weights(shards: Shards, settings: Settings) -> dict[str, StoredTensor]:
    """Find the weights of a compressed-tensors checkpoint; see `WeightFormat`."""
    _check(shards, settings)
    block = next(
        (b for g in _groups(settings) if (b := (g.get("weights") or {}).get("block_structure"))),
        None,
    )
    found = {}
    for name in shards.names:
        layer, _, part = name.rpartition(".")
        if part not in ("weight_packed", "weight") or f"{layer}.weight_scale" not in shards:
            continue
        others = (n for p in (*_PARTS, *_IGNORED) if (n := f"{layer}.{p}") in shards)
        dtype = shards.dtype(name)
        read: Callable[[], StoredWeight]
        if part == "weight_packed":
            num_bits = _bits(shards, layer)
            kind, read = f"compressed {num_bits}-bit", partial(_packed, shards, layer, num_bits)
        elif dtype == "I8":
            kind, read = "compressed 8-bit", partial(_whole, shards, layer)
        else:
            kind = dtype.lower()
            read = partial(_float, shards, layer, block)
        found[f"{layer}.weight"] = StoredTensor((name, *others), read, kind)
    return found


def _check(shards: Shards, settings: Settings) -> None:
    named = [settings.get("format"), *(group.get("format") for group in _groups(settings))]
    for name in named:
        if name is not None and name not in (*_FORMATS, "mixed-precision"):
            raise refused(shards.folder, "format", name, f"is not among {', '.join(_FORMATS)}")
    sparsity = (settings.get("sparsity_config") or {}).get("format", "dense")
    if sparsity != "dense":
        raise refused(shards.folder, "sparsity_config.format", sparsity, "is not 'dense'")
    if transforms := (settings.get("transform_config") or {}).get("config_groups"):
        raise refused(
            shards.folder, "transform_config", sorted(transforms), "rotates activations in the pass"
        )


def _groups(settings: Settings) -> Iterator[dict[str, Any]]:
    yield from (g for g in settings.get("config_groups", {}).values() if isinstance(g, dict))


def _bits(shards: Shards, layer: str) -> int:
    in_features = int(shards.read(f"{layer}.weight_shape")[1])
    return shards.shape(f"{layer}.weight_packed")[1] * 32 // in_features


def _packed(shards: Shards, layer: str, num_bits: int) -> Grid:
    rows, columns = (int(n) for n in shards.read(f"{layer}.weight_shape"))
    codes = unpack_dense(shards.read(f"{layer}.weight_packed"), num_bits, columns)
    scales, zeros = shards.read(f"{layer}.weight_scale").view(rows, -1), None
    centre, name = 1 << (num_bits - 1), f"{layer}.weight_zero_point"
    if name in shards:
        words = shards.read(name).mT.contiguous()
        zeros = unpack_dense(words, num_bits, rows).mT.contiguous() - centre
    order = f"{layer}.weight_g_idx"
    groups = shards.read(order).long() if order in shards else None
    return Grid(codes - centre, scales, zeros, group_of_column=groups)


def _whole(shards: Shards, layer: str) -> StoredWeight:
    codes = shards.read(f"{layer}.weight").to(torch.int32)
    scales, name = shards.read(f"{layer}.weight_scale"), f"{layer}.weight_zero_point"
    shape = (len(codes), -1) if scales.numel() > 1 else (1, 1)
    zeros = shards.read(name).to(torch.int32) if name in shards else None
    expanded = scales.view(shape).expand(len(codes), -1)
    return Grid(codes, expanded, None if zeros is None else zeros.view(shape).expand_as(expanded))


def _float(shards: Shards, layer: str, block: list[int] | None) -> StoredWeight:
    return read_float8(shards, f"{layer}.weight", f"{layer}.weight_scale", block)
