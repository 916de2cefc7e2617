"""Windows of local layers, and which layers of a GGUF file's model are local."""

from __future__ import annotations

from streamingllm.models.gguf.metadata import ArchitectureMetadata

WINDOW = "attention.sliding_window"


def window(metadata: ArchitectureMetadata) -> int | None:
    """Return the window of local layers; None for zero, and without one."""
    return metadata.integer(WINDOW, 0) or None


def layer_types(metadata: ArchitectureMetadata, period: int) -> list[str]:
    """Return the kind of each layer: local ones, and a global one at the end of each period.

    Args:
        metadata: of the file, which may state the kind of each layer itself, or the period.
        period: layers of one period if the file states none.
    """
    name, num_layers = "attention.sliding_window_pattern", metadata.num_layers
    stated = metadata.header.metadata.get(metadata.key(name))
    if isinstance(stated, list) and len(stated) >= num_layers:
        local = [bool(is_local) for is_local in stated[:num_layers]]
    else:
        period = metadata.integer(name) if isinstance(stated, int) else period
        local = [(layer + 1) % period != 0 for layer in range(num_layers)]
    return ["sliding_attention" if is_local else "full_attention" for is_local in local]
