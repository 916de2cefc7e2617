"""Read FP8: floats of 8 bits with a scale of the tensor, of each row or of each block.

Source: https://huggingface.co/deepseek-ai/DeepSeek-V3, README_WEIGHTS.md (blocks of 128 x 128,
`weight_scale_inv`); https://huggingface.co/docs/transformers, fbgemm_fp8 (a scale of each row).
"""

from __future__ import annotations

from functools import partial

from torch import Tensor

from streamingllm.models.formats.base import Settings, StoredTensor, refused
from streamingllm.models.formats.stored import Values
from streamingllm.models.shards import Shards

REASON = "its FP8 numbers have steps that grow with their size, and packed layouts have equal steps"
_DTYPES = ("F8_E4M3", "F8_E5M2")
_IGNORED = ("input_scale", "activation_scale")
_SCALES = ("weight_scale_inv", "weight_scale")


def float8_weights(shards: Shards, settings: Settings) -> dict[str, StoredTensor]:
    """Find the weights of an FP8 checkpoint; see `WeightFormat`."""
    block = settings.get("weight_block_size") or None
    if (experts := settings.get("expert_dtype", "fp8")) != "fp8":
        raise refused(shards.folder, "expert_dtype", experts, "is not 'fp8'")
    found = {}
    for name in shards.names:
        layer, _, part = name.rpartition(".")
        if part != "weight" or shards.dtype(name) not in _DTYPES:
            continue
        scale = next((s for p in _SCALES if (s := f"{layer}.{p}") in shards), None)
        if scale is None:
            raise refused(
                shards.folder,
                "quant_method",
                settings.get("quant_method"),
                f"leaves {name} without a scale",
            )
        read = partial(read_float8, shards, name, scale, block)
        ignored = (n for p in _IGNORED if (n := f"{layer}.{p}") in shards)
        found[name] = StoredTensor((name, scale, *ignored), read, shards.dtype(name).lower())
    return found


def read_float8(shards: Shards, name: str, scale: str, block: list[int] | None = None) -> Values:
    """Read a weight and multiply it with its scales in float32."""
    weight, scales = shards.read(name).float(), shards.read(scale).float()
    return Values(scale_blocks(weight, scales, block), REASON)


def scale_blocks(weight: Tensor, scales: Tensor, block: list[int] | None = None) -> Tensor:
    """Multiply blocks of a weight with their scales, in place.

    Args:
        weight: float32, [rows, columns].
        scales: float32: of the tensor, [rows], or [row blocks, column blocks]. The last blocks may
            be cut off by the edge.
        block: rows and columns of a block; None if they divide the weight evenly.
    """
    if scales.numel() == 1:
        return weight.mul_(scales.reshape(()))
    if scales.ndim == 1:
        scales = scales[:, None]
    for axis in (0, 1):
        size, count = weight.shape[axis], scales.shape[axis]
        length = block[axis] if block is not None and count > 1 else -(-size // count)
        scales = scales.repeat_interleave(length, axis).narrow(axis, 0, size)
    return weight.mul_(scales)
