"""Layers that attend to the keys and values of an earlier layer (Gemma 3n, Gemma 4 E2B and E4B)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def reading_layers(model: PreTrainedModel) -> tuple[int, ...]:
    """Return, for each of the last layers that has no keys of its own, the layer it reads.

    That is the last layer of its kind that has any. Empty if all layers have their own.
    """
    config = model.config.get_text_config()
    modes: list[str | None] = list(getattr(config, "kv_sharing_modes", None) or [])
    num_own = modes.index("reuse") if "reuse" in modes else len(modes)
    kinds = list(config.layer_types) if num_own < len(modes) else []
    if any(mode != "reuse" for mode in modes[num_own:]):
        return ()
    return tuple(
        max(layer for layer in range(num_own) if kinds[layer] == kind) for kind in kinds[num_own:]
    )
