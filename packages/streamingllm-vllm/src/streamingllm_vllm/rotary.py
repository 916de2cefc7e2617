"""Rotary table of the model: turns keys by whole positions."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from vllm.model_executor.layers import rotary_embedding

from streamingllm_vllm.errors import UnsupportedDeploymentError

# Others scale by the length of the text or turn several axes.
SUPPORTED_ROPES = ("RotaryEmbedding", "Llama3RotaryEmbedding", "YaRNScalingRotaryEmbedding")
_TOLERANCE = 2e-3  # of a sum of two rounded angles of up to 2 ** 17


class RotaryTable:
    """Turn keys by differences of positions, with the angles that the model itself uses.

    Args:
        cos_sin: cosines and sines of each position, float32 [positions, head_size]; a scale that
            is part of them is divided out.

    Raises:
        UnsupportedDeploymentError: rows of the table do not add up as rotations do.
    """

    def __init__(self, cos_sin: Tensor) -> None:
        cos, sin = cos_sin.float().chunk(2, dim=-1)
        scale = (cos.square() + sin.square()).sqrt()
        self.cos, self.sin = cos / scale, sin / scale
        self._check(float(scale.max() - scale.min()))

    @classmethod
    def of_model(cls, head_size: int) -> RotaryTable:
        """Return the table of the model that this process has loaded.

        Raises:
            UnsupportedDeploymentError: layers differ, or turn keys in another way.
        """
        ropes = list(rotary_embedding._ROPE_DICT.values())
        if len(ropes) != 1:
            raise UnsupportedDeploymentError(
                f"rotary_embeddings={len(ropes)} are in this model; streaming mode needs one for "
                "all layers"
            )
        rope = ropes[0]
        kind = type(rope).__name__
        if kind not in SUPPORTED_ROPES:
            raise UnsupportedDeploymentError(
                f"rope_type={kind} is not supported; choose a model with one of "
                f"{', '.join(SUPPORTED_ROPES)}"
            )
        if not rope.is_neox_style or rope.rotary_dim != head_size:
            raise UnsupportedDeploymentError(
                f"rotary_dim={rope.rotary_dim} is_neox_style={rope.is_neox_style} is not "
                f"supported; choose a model that turns halves of all {head_size} dimensions"
            )
        return cls(rope._compute_cos_sin_cache())

    @property
    def num_positions(self) -> int:
        """Positions of the table."""
        return len(self.cos)

    def turn(self, keys: Tensor, distances: NDArray[np.int64]) -> Tensor:
        """Return keys as if they were written `distances` positions later.

        Args:
            keys: [tokens, heads, head_size].
            distances: positions of each token, negative ones turn back, [tokens].
        """
        rows = torch.from_numpy(np.abs(distances))
        cos = self.cos[rows][:, None]
        sin = (self.sin[rows] * torch.from_numpy(np.sign(distances))[:, None])[:, None]
        first, second = keys.float().chunk(2, dim=-1)
        turned = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
        return turned.to(keys.dtype)

    def _check(self, spread: float) -> None:
        last = self.num_positions - 1
        first = torch.linspace(0, last // 2, 64).long()
        second = torch.linspace(last // 3, last - last // 2, 64).long().flip(0)
        cos = self.cos[first] * self.cos[second] - self.sin[first] * self.sin[second]
        sin = self.sin[first] * self.cos[second] + self.cos[first] * self.sin[second]
        total = first + second
        off = max(
            float((cos - self.cos[total]).abs().max()), float((sin - self.sin[total]).abs().max())
        )
        if not (off < _TOLERANCE and spread < _TOLERANCE):
            raise UnsupportedDeploymentError(
                f"rotary_table is off by {off:.3g} from rotations of even steps; its model scales "
                "positions by the length of the text, which streaming mode does not support"
            )
