"""Position Interpolation: squeeze positions into the trained range.

Source: Chen et al., arXiv 2306.15595. Deviation: no fine-tuning, as everywhere in this library.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor
from transformers import PreTrainedModel

from streamingllm.config import StreamConfig
from streamingllm.errors import UnsupportedFeatureError
from streamingllm.positions.tables import rotary_modules
from streamingllm.strategies.base import LogitsToKeep
from streamingllm.strategies.dense import DenseStrategy


class InterpolationStrategy(DenseStrategy):
    """Dense attention with every rotary angle divided by `interpolation_factor`."""

    name = "interpolation"

    def __init__(self, model: PreTrainedModel, config: StreamConfig) -> None:
        super().__init__(model, config)
        self.factor = config.interpolation_factor
        if not rotary_modules(model):
            raise UnsupportedFeatureError(
                f"strategy='interpolation': {model.config.model_type} has no rotary frequencies to "
                "divide; use 'dense' or 'sinks'"
            )

    def step(self, ids: Tensor, valid: Tensor | None, logits_to_keep: LogitsToKeep) -> Tensor:
        """Feed ids [batch, seq] and return logits."""
        with self._interpolated():
            return super().step(ids, valid, logits_to_keep)

    @contextmanager
    def _interpolated(self) -> Iterator[None]:
        """Divide the model's frequencies for the length of one pass."""
        originals = [
            (buffer, buffer.clone())
            for module in rotary_modules(self.model)
            for name, buffer in module.named_buffers(recurse=False)
            if name.endswith("inv_freq")
        ]
        try:
            for buffer, _ in originals:
                buffer.div_(self.factor)
            yield
        finally:
            for buffer, original in originals:
                buffer.copy_(original)
