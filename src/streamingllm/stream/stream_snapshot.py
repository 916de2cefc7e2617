"""Snapshot of a stream: its state apart from the model, and the file that holds it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from streamingllm.cache.snapshot import model_fingerprint, read_snapshot, write_snapshot
from streamingllm.cache.state import CacheState
from streamingllm.config import StreamConfig
from streamingllm.errors import SnapshotError
from streamingllm.inputs import with_sink_token

_NEXT_LOGITS = "next_logits"


@dataclass(frozen=True, eq=False)
class StreamSnapshot:
    """Hold what a snapshot keeps.

    Args:
        config: of the stream.
        cache: buffers and positions.
        next_logits: [batch, vocab]; None before the first token.
        token_tail: last tokens of each stream.
        is_single: whether the stream was begun with ids [seq] and not [batch, seq].
        metadata: JSON-able facts that belong to the stream.
        adapter: fingerprint of its adapter; None for the model's own weights.
    """

    config: StreamConfig
    cache: CacheState
    next_logits: Tensor | None
    token_tail: list[list[int]]
    is_single: bool
    metadata: dict[str, Any]
    adapter: str | None = None

    def write(self, path: Path, model: PreTrainedModel) -> None:
        """Save to a file that only `model` can go on from.

        Raises:
            SnapshotError: the file cannot be written; one that was there before is untouched.
        """
        tensors = {
            f"{name}.{layer}": tensor
            for name, per_layer in self.cache.buffers.items()
            for layer, tensor in enumerate(per_layer)
        }
        if self.next_logits is not None:
            tensors[_NEXT_LOGITS] = self.next_logits
        facts = {
            "model": model_fingerprint(model),
            "config": asdict(self.config),
            "positions": self.cache.positions,
            "token_tail": self.token_tail,
            "is_single": self.is_single,
            "metadata": self.metadata,
            "adapter": self.adapter,
        }
        write_snapshot(path, tensors, facts)

    @classmethod
    def read(cls, path: Path, model: PreTrainedModel) -> StreamSnapshot:
        """Load what `write` saved, on the model's device.

        Raises:
            SnapshotError: the file is missing, damaged, or of another model.
        """
        tensors, facts = read_snapshot(path)
        if facts["model"] != model_fingerprint(model):
            raise SnapshotError(
                f"{path}: belongs to another model or dtype than {model.config.model_type} in "
                f"{model.dtype}; load the one it was made with"
            )
        tensors = {name: tensor.to(model.device) for name, tensor in tensors.items()}
        fields = facts["config"]
        if fields["sink_positions"] is not None:
            fields["sink_positions"] = tuple(fields["sink_positions"])
        config = StreamConfig(**fields)
        next_logits = tensors.pop(_NEXT_LOGITS, None)
        return cls(
            config=config,
            cache=CacheState.of(
                with_sink_token(config, model), _by_layer(tensors), facts["positions"]
            ),
            next_logits=next_logits,
            token_tail=facts["token_tail"],
            is_single=facts["is_single"],
            metadata=facts["metadata"],
            adapter=facts.get("adapter"),
        )


def _by_layer(tensors: dict[str, Tensor]) -> dict[str, list[Tensor]]:
    """Group tensors called `name.layer` by their name, in the order of layers."""
    layers: dict[str, dict[int, Tensor]] = {}
    for key, tensor in tensors.items():
        name, _, layer = key.rpartition(".")
        layers.setdefault(name, {})[int(layer)] = tensor
    return {name: [of[layer] for layer in sorted(of)] for name, of in layers.items()}
