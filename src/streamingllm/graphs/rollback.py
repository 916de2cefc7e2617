"""Take back what a decode step that failed half-way has written."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from streamingllm.attention.step_plan import RingBuffers, StepLayout
from streamingllm.graphs.step_module import StepModule


def take_back(module: StepModule, numbers: Tensor, buffers: Sequence[RingBuffers]) -> None:
    """Give back to the rings what the tokens of a failed step have overwritten.

    The same step can then run again: without this, its second run would put its own tokens among
    the overwritten entries that `rewind` needs.

    Args:
        module: ran the step; its `written_layers` have its tokens.
        numbers: of the step, int64, [3 + 5 x geometries, batch].
        buffers: of each layer, written in place.
    """
    _, slots, positions, *layouts = numbers.tolist()
    width = len(StepLayout._fields)
    # Layers past the last buffers have written to those of an earlier layer.
    for layer in (layer for layer in module.written_layers if layer < len(buffers)):
        first = module.geometry_of[layer] * width
        sinks, windows = layouts[first], layouts[first + 1]
        # The last token of a slot has overwritten last.
        for slot, t, n, m in reversed([*zip(slots, positions, sinks, windows, strict=True)]):
            _restore(buffers[layer], slot, t, m, n)


def _restore(rings: RingBuffers, slot: int, position: int, window_size: int, n: int) -> None:
    entry = position % window_size + (n if rings.k_sinks is None else 0)
    for cache, undo in ((rings.k_cache, rings.k_undo), (rings.v_cache, rings.v_undo)):
        if position >= window_size and undo.shape[2]:
            overwritten = undo[slot, :, (position - window_size) % undo.shape[2]]
            cache[slot, :, entry] = overwritten
