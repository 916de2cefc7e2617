"""Rotary position embedding, exact at any stream position (Su et al., arXiv 2104.09864).

Angles are computed in float64 from the unbounded stream position, so a key is rotated once, when
it arrives, and never again. A rotation depends on the angle modulo 2 pi. At position 4,000,000
float64 holds that to 1e-9, where float32 angles are off by whole tenths.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from streamingllm.kernels import operators, reference
from streamingllm.kernels.limits import rotate_unsupported_reason
from streamingllm.kernels.operators import rotary_table

Layout = Literal["half", "interleaved"]
Columns = Literal["concatenated", "repeated", "single", "complex"]


def expand_columns(per_pair: Tensor, columns: Columns) -> Tensor:
    """Lay out one value per rotated pair, [..., pairs], as a model's rotary tables do."""
    if columns == "concatenated":
        return torch.cat((per_pair, per_pair), dim=-1)
    if columns == "repeated":
        return per_pair.repeat_interleave(2, dim=-1)
    return per_pair


def rotate(x: Tensor, cos: Tensor, sin: Tensor, layout: Layout, start: int) -> Tensor:
    """Rotate the pairs of `x` [..., head_dim] that begin at dimension `start`.

    Args:
        x: queries or keys.
        cos: cosine per pair, [..., pairs], broadcast against x without its last dimension.
        sin: sine per pair, of the same shape.
        layout: whether pair i is (i, i + pairs) or (2i, 2i + 1).
        start: first rotary dimension; the others pass unchanged.
    """
    stop = start + 2 * cos.shape[-1]
    rotary = x[..., start:stop]
    if layout == "half":
        turn = operators.rotate if can_turn(rotary, cos) else reference.rotate
        turned = turn(rotary, cos, sin)
    else:
        first, second = rotary.unflatten(-1, (-1, 2)).unbind(-1)
        pairs = (first * cos - second * sin, second * cos + first * sin)
        turned = torch.stack(pairs, dim=-1).flatten(-2)
    if turned.shape[-1] == x.shape[-1]:
        return turned
    return torch.cat((x[..., :start], turned, x[..., stop:]), dim=-1)


def can_turn(x: Tensor, cos: Tensor) -> bool:
    """Return whether the operator `rotate` can compute what `reference.rotate` does."""
    return (
        x.dtype is cos.dtype
        and x.ndim == 4
        and not x.requires_grad
        and not torch.compiler.is_compiling()  # inductor joins it to its neighbours
        and rotate_unsupported_reason(x.shape[-1], x.dtype, x.device) is None
    )


@dataclass(frozen=True)
class Rotation:
    """A turn by one angle per token: what `RopeEncoding.shift` returns.

    `cos` and `sin` are [batch, 1, seq, pairs]. `query_from_end` counts a query's rotary dimensions
    from its last one: a latent-attention model caches its rotary key apart from other dimensions.
    """

    cos: Tensor
    sin: Tensor
    layout: Layout
    key_start: int
    query_from_end: bool

    def queries(self, q: Tensor) -> Tensor:
        """Turn queries [batch, num_heads, seq, head_dim]."""
        start = q.shape[-1] - 2 * self.cos.shape[-1] if self.query_from_end else self.key_start
        return rotate(q, self.cos, self.sin, self.layout, start)

    def keys(self, k: Tensor) -> Tensor:
        """Turn keys [batch, num_kv_heads, seq, head_dim]."""
        return rotate(k, self.cos, self.sin, self.layout, self.key_start)


@dataclass(frozen=True)
class RopeEncoding:
    """Rotary encoding of one layer.

    Args:
        inv_freq: radians per position of each rotated pair, float64, [pairs].
        attention_scaling: factor that the model folds into its tables (YaRN, LongRoPE); it is
            applied once, when a token is first rotated, never by `shift`.
        layout: how pairs lie in a head.
        key_start: first rotary dimension of a cached key.
        query_from_end: the query's rotary dimensions are its last ones (latent attention).
        in_values: the cache's second tensor holds the rotary key (latent attention).
        backwards: heads turn by the negative of the angles in the model's tables (nanochat).
    """

    inv_freq: Tensor
    attention_scaling: float = 1.0
    layout: Layout = "half"
    key_start: int = 0
    query_from_end: bool = False
    in_values: bool = False
    backwards: bool = False

    name: ClassVar[str] = "rope"
    position_limit: ClassVar[int | None] = None
    has_bias: ClassVar[bool] = False

    def tables(
        self, positions: Tensor, columns: Columns, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor] | Tensor:
        """Return what the model's rotary module returns for int64 `positions` [batch, seq].

        Cosines and sines, or one tensor of complex numbers if `columns` says so.
        """
        exact = dtype in (torch.float64, torch.complex128)
        cos, sin = self._table(positions, self.attention_scaling, exact)
        if columns == "complex":
            return torch.complex(cos, sin).to(dtype)
        return expand_columns(cos, columns).to(dtype), expand_columns(sin, columns).to(dtype)

    def place(self, positions: Tensor, like: Tensor) -> Rotation:
        """Prepare the first turn of fresh tokens to `positions`, [batch, seq]."""
        return self._turn(positions, like, self.attention_scaling)

    def shift(self, amount: Tensor, like: Tensor) -> Rotation:
        """Prepare a turn by `amount` positions, [batch, seq]."""
        return self._turn(amount, like, 1.0)

    def _turn(self, amount: Tensor, like: Tensor, scaling: float) -> Rotation:
        cos, sin = self._table(amount[:, None], scaling, like.dtype is torch.float64)
        sin = -sin if self.backwards else sin
        return Rotation(
            cos.to(like), sin.to(like), self.layout, self.key_start, self.query_from_end
        )

    def _table(self, positions: Tensor, scaling: float, exact: bool) -> tuple[Tensor, Tensor]:
        """Cosines and sines, [*positions.shape, pairs]: float64 if `exact`, else float32."""
        inv_freq = self.inv_freq.to(positions.device)
        if not exact:
            cos, sin = rotary_table(positions, inv_freq, scaling)
            return cos, sin
        angles = positions.double()[..., None] * inv_freq
        return angles.cos() * scaling, angles.sin() * scaling

    def bias(self, distances: Tensor, dtype: torch.dtype) -> None:
        """Rotary scores carry their distance already."""
