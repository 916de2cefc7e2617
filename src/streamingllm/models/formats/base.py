"""A format of quantised checkpoints: which weights it stores, and from which tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from streamingllm.errors import ModelLoadError
from streamingllm.models.formats.stored import StoredWeight
from streamingllm.models.shards import Shards

Settings = Mapping[str, Any]
"""What config.json says in `quantization_config`."""


@dataclass(frozen=True)
class StoredTensor:
    """Describe one weight of a checkpoint.

    Args:
        parts: names of the tensors that it is read from.
        read: reads them.
        kind: what the weight is stored as, for people: `gptq 4-bit`.
    """

    parts: tuple[str, ...]
    read: Callable[[], StoredWeight]
    kind: str


class WeightFormat(Protocol):
    """Find the weights of one format in a checkpoint."""

    def __call__(self, shards: Shards, settings: Settings) -> dict[str, StoredTensor]:
        """Return the weights that are stored in this format, by their name in the dense model.

        Raises:
            ModelLoadError: the settings name a variant that is not read.
        """


def refused(folder: Path, field: str, value: object, problem: str) -> ModelLoadError:
    """Return the error for a variant of a format that is not read."""
    return ModelLoadError(
        f"{folder}: quantization_config.{field}={value!r} {problem}; choose a checkpoint in "
        "another format"
    )
