"""Facts of one attention layer, stated by hand, and the tokens and distances that follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class LayerFacts:
    """What one attention layer does with positions, stated by hand.

    Args:
        inv_freq: radians per position of each rotated pair, float64, [pairs]; None without RoPE.
        layout: whether pair i is dimensions (i, i + pairs) or (2i, 2i + 1).
        start: first rotated dimension of a query or key when attention sees it.
        cached: which of the two cached tensors holds the rotated dimensions.
        cached_start: first rotated dimension of that tensor.
        log_decay: xPos: a pair's scores are multiplied by exp(log_decay x distance), [pairs].
        slopes: ALiBi: slope x distance is subtracted from the scaled score, [num_heads].
        own_window: tokens that the model lets this layer see, None for all.
        cached_elements: numbers that the layer has to keep per token.
    """

    inv_freq: Tensor | None = None
    layout: Literal["half", "interleaved"] = "half"
    start: int = 0
    cached: Literal["keys", "values"] = "keys"
    cached_start: int = 0
    log_decay: Tensor | None = None
    slopes: Tensor | None = None
    own_window: int | None = None
    cached_elements: int = 0

    def pairs(self, x: Tensor, start: int) -> tuple[Tensor, Tensor]:
        """Return the first and second member of each rotated pair of `x`, [..., pairs]."""
        assert self.inv_freq is not None
        num_pairs = len(self.inv_freq)
        first = torch.arange(num_pairs) * (2 if self.layout == "interleaved" else 1)
        step = 1 if self.layout == "interleaved" else num_pairs
        return x[..., start + first], x[..., start + first + step]

    def moved(self, x: Tensor, positions: Tensor) -> Tensor:
        """Return cached entries [batch, heads, seq, dim] moved by `positions` [seq]."""
        if self.inv_freq is None:
            return x
        angles = positions.double()[:, None] * self.inv_freq
        cos, sin = angles.cos(), angles.sin()
        if self.log_decay is not None:
            shrink = (-positions.double()[:, None] * self.log_decay).exp()
            cos, sin = cos * shrink, sin * shrink
        first, second = self.pairs(torch.arange(x.shape[-1]), self.cached_start)
        out, a, b = x.clone(), x[..., first].double(), x[..., second].double()
        out[..., first] = (a * cos - b * sin).to(x.dtype)
        out[..., second] = (b * cos + a * sin).to(x.dtype)
        return out

    def dot_products(self, q: Tensor, k: Tensor, distance: Tensor) -> Tensor:
        """Return q . k, [batch, heads, queries, keys], each pair turned by its own distance."""
        if self.inv_freq is None:
            return torch.einsum("bhtd,bhjd->bhtj", q, k)
        stop = self.start + 2 * len(self.inv_freq)
        still = [d for d in range(q.shape[-1]) if not self.start <= d < stop]
        products = torch.einsum("bhtd,bhjd->bhtj", q[..., still], k[..., still])
        angles = distance.to(q.dtype)[..., None] * self.inv_freq.to(q.dtype)
        cos, sin = angles.cos(), angles.sin()
        if self.log_decay is not None:
            grow = (distance.to(q.dtype)[..., None] * self.log_decay).exp()
            cos, sin = cos * grow, sin * grow
        (q1, q2), (k1, k2) = self.pairs(q, self.start), self.pairs(k, self.start)
        equation = "bhtp,bhjp,tjp->bhtj"
        for a, b, factor in ((q1, k1, cos), (q2, k2, cos), (q1, k2, sin), (q2, k1, -sin)):
            products = products + torch.einsum(equation, a, b, factor)
        return products


def reaches(layers: Sequence[LayerFacts], n: int, m: int) -> list[tuple[int, int]]:
    """Return each layer's share of sinks and window, as DESIGN.md says for hybrids."""
    every_layer_windowed = all(layer.own_window is not None for layer in layers)
    shares = []
    for layer in layers:
        if layer.own_window is None or layer.own_window > m:
            shares.append((n, m))
        elif every_layer_windowed:
            shares.append((n, layer.own_window))
        else:
            shares.append((0, layer.own_window))
    return shares


@dataclass(frozen=True)
class Turns:
    """Eviction by whole turns.

    Args:
        starts: stream positions at which turns begin.
        window: tokens of the window at most (m).
    """

    starts: Sequence[int]
    window: int

    def oldest(self, t: int) -> int:
        """Return the first token that the query at `t` sees, sinks apart.

        The first turn that begins among the last m tokens, the youngest half of them excepted.
        """
        if t < self.window:
            return 0
        recent = range(t - self.window + 1, t - self.window // 2 + 1)
        return min((start for start in self.starts if start in recent), default=recent.start)


@dataclass(frozen=True)
class Blocks:
    """Eviction by blocks, as paged caches do it.

    Args:
        size: tokens of a block.
        window: tokens of the window at most (m).
    """

    size: int
    window: int

    def oldest(self, t: int) -> int:
        """Return the first token of the first block that is not free at `t`, sinks apart.

        A block is freed once none of its tokens is among the last m - size + 1.
        """
        block = 0
        while (block + 1) * self.size <= t - (self.window - self.size):
            block += 1
        return block * self.size


def kept_tokens(
    t: int, sinks: Sequence[int], window: int, turns: Turns | Blocks | None = None
) -> list[int]:
    """Return the stream positions that the query at `t` sees, in order, itself last."""
    oldest = max(0, t - window + 1, 0 if turns is None else turns.oldest(t))
    return [*sorted(j for j in sinks if j < oldest), *range(oldest, t + 1)]


def distance_matrix(
    num_tokens: int, sinks: Sequence[int], window: int, turns: Turns | Blocks | None = None
) -> Tensor:
    """Return distances inside the cache, int64, [queries, keys]; -1 where nothing is seen."""
    distance = torch.full((num_tokens, num_tokens), -1)
    for t in range(num_tokens):
        kept = kept_tokens(t, sinks, window, turns)
        for place, j in enumerate(kept):
            distance[t, j] = len(kept) - 1 - place
    return distance
