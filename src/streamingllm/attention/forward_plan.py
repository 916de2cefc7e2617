"""The plan of one forward pass through a whole model, and the way it travels there."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from streamingllm.attention.plan import Chunk, WindowPlan
from streamingllm.positions.base import PositionEncoding


@dataclass(frozen=True)
class ForwardPlan:
    """What each layer needs to attend; it travels down the model as its attention mask.

    Args:
        chunk: the tokens of this pass.
        windows: the plan of each layer.
        encodings: the position encoding of each layer.
    """

    chunk: Chunk
    windows: tuple[WindowPlan, ...]
    encodings: tuple[PositionEncoding, ...]

    ndim = 0  # models look at a mask's rank before they decide to edit it

    def to(self, *args: Any, **kwargs: Any) -> ForwardPlan:
        """Return itself: models cast their masks."""
        return self


active_plan: ContextVar[ForwardPlan | None] = ContextVar("active_plan", default=None)
