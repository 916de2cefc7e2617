"""xPos: rotary embedding with a decay that depends on distance (Sun et al., arXiv 2212.10554)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from streamingllm.positions.rope import RopeEncoding, Rotation


@dataclass(frozen=True)
class ScaledRotation:
    """A turn together with the change of scale that xPos asks for."""

    rotation: Rotation
    scale: Tensor

    def queries(self, q: Tensor) -> Tensor:
        """Turn and scale queries [batch, num_heads, seq, head_dim]."""
        return self._scaled(self.rotation.queries(q), self.scale)

    def keys(self, k: Tensor) -> Tensor:
        """Turn keys [batch, num_kv_heads, seq, head_dim] and scale them inversely."""
        return self._scaled(self.rotation.keys(k), 1 / self.scale)

    def _scaled(self, x: Tensor, scale: Tensor) -> Tensor:
        start = self.rotation.key_start
        stop = start + scale.shape[-1]
        return torch.cat((x[..., :start], x[..., start:stop] * scale, x[..., stop:]), dim=-1)


@dataclass(frozen=True)
class XPosEncoding(RopeEncoding):
    """Rotary encoding whose queries grow and keys shrink with their position.

    Args:
        log_decay: natural logarithm of each pair's decay per position, float64, [pairs].

    A key's scale grows without bound with its position, hence the `position_limit`. Past it the
    cache counts from a new origin. It re-angles and re-scales its keys by the difference.
    """

    log_decay: Tensor = field(default_factory=lambda: torch.zeros(0))

    name: ClassVar[str] = "xpos"
    position_limit: ClassVar[int | None] = 4096

    def place(self, positions: Tensor, like: Tensor) -> ScaledRotation:  # type: ignore[override]
        """Prepare the first turn and scale of fresh tokens at `positions`, [batch, seq]."""
        return self.shift(positions, like)

    def shift(self, amount: Tensor, like: Tensor) -> ScaledRotation:  # type: ignore[override]
        """Prepare a turn and a change of scale by `amount` positions, [batch, seq]."""
        logs = amount.double()[:, None, :, None] * self.log_decay.to(amount.device)
        per_pair = logs.exp().to(like)
        halves = torch.cat((per_pair, per_pair), dim=-1)
        scale = halves if self.layout == "half" else per_pair.repeat_interleave(2, dim=-1)
        return ScaledRotation(super().shift(amount, like), scale)
