"""One pass that begins in a module around the decoder: a model of pictures and text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from streamingllm.attention.plan import Chunk
from streamingllm.errors import UnsupportedFeatureError

_MEDIA = ("pixel_values", "input_features", "input_values")


def has_media(arguments: Mapping[str, Any]) -> bool:
    """Return whether a pass is given pictures, video or sound besides its tokens."""
    return any(
        value is not None and any(name.startswith(media) for media in _MEDIA)
        for name, value in arguments.items()
    )


@dataclass(frozen=True)
class WrappedPass:
    """A running pass, which the decoder joins.

    Args:
        chunk: its tokens.
        has_media: whether some of them stand for pictures, video or sound.
    """

    chunk: Chunk
    has_media: bool

    def check(self, arguments: Mapping[str, Any]) -> None:
        """Refuse pictures that have masks or positions of their own.

        Args:
            arguments: what the decoder is called with.

        Raises:
            UnsupportedFeatureError: the plan of the pass would take their place.
        """
        masks, positions = arguments.get("attention_mask"), arguments.get("position_ids")
        own_mask = masks is not None and not isinstance(masks, Tensor)
        own_positions = (
            isinstance(positions, Tensor)
            and positions.ndim == 3
            and bool((positions != positions[:1]).any())
        )
        if self.has_media and (own_mask or own_positions):
            what = "masks" if own_mask else "positions"
            raise UnsupportedFeatureError(
                f"pixel_values: this model gives pictures {what} of their own, which a stream "
                "has not; feed text only"
            )
