"""A tiny decoder over bytes: its position encoding and its attention sink are choices.

Scores are computed in two ways. Training turns queries and keys by their positions. Reading takes
a matrix of distances, so that a token may stand anywhere. A test holds them equal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

ENCODINGS = ("rope", "alibi", "xpos", "nope", "learned")
SINKS = ("none", "token", "softmax1", "logit", "gate")
SINK_TOKEN = 256  # follows the bytes
VOCAB_SIZE = 257
ROPE_THETA = 100.0
HIDDEN = -1  # the distance of a key that a query does not see


@dataclass(frozen=True)
class Arm:
    """Choices of a decoder.

    Args:
        encoding: one of `ENCODINGS`.
        sink: one of `SINKS`: nothing; a trained token before each text; a constant logit of 0; a
            trained logit per head; a gate on the output of each head.
        trained_length: bytes of a training sample.
        width, num_layers, num_heads: of the decoder.
    """

    encoding: str = "rope"
    sink: str = "none"
    trained_length: int = 64
    width: int = 64
    num_layers: int = 3
    num_heads: int = 4

    @property
    def head_size(self) -> int:
        """Numbers of a head."""
        return self.width // self.num_heads


class Positions(nn.Module):
    """Position part of scores, and of inputs where positions are learned."""

    def __init__(self, arm: Arm) -> None:
        super().__init__()
        self.arm = arm
        pair = torch.arange(arm.head_size // 2, dtype=torch.float64)
        pairs = len(pair)
        self.inv_freq = ROPE_THETA ** (-pair / pairs)
        # Sun et al. (arXiv 2212.10554), section 3.1: zeta = (i / pairs + 0.4) / 1.4.
        self.log_decay = ((pair / pairs + 0.4) / 1.4).log() / arm.trained_length
        self.slopes = 2.0 ** (-8 * torch.arange(1, arm.num_heads + 1) / arm.num_heads)
        self.table = nn.Embedding(arm.trained_length + 1, arm.width)

    def inputs(self, x: Tensor, positions: Tensor) -> Tensor:
        """Add learned positions to inputs [batch, seq, width]; the last row serves all after it."""
        if self.arm.encoding != "learned":
            return x
        rows: Tensor = self.table(positions.clamp(max=self.table.num_embeddings - 1))
        return x + rows

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        """Return the scores of a text at positions 0, 1, 2..., [batch, heads, seq, seq]."""
        encoding, seq = self.arm.encoding, q.shape[2]
        positions = torch.arange(seq, dtype=torch.float64, device=q.device)
        if encoding in ("rope", "xpos"):
            growth = self.log_decay.to(q.device) * (encoding == "xpos")
            q = self._turned(q, positions, growth)
            k = self._turned(k, positions, -growth)
        found = q @ k.mT
        if encoding == "alibi":
            distances = positions[:, None] - positions
            found = found - math.sqrt(self.arm.head_size) * self._penalty(distances)
        return found

    def scores_at(self, q: Tensor, k: Tensor, distances: Tensor) -> Tensor:
        """Return scores [batch, heads, queries, keys] from a matrix of distances.

        Args:
            q: without a position, [batch, heads, queries, head_size].
            k: without a position, [batch, heads, keys, head_size].
            distances: [queries, keys].
        """
        encoding = self.arm.encoding
        if encoding not in ("rope", "xpos"):
            found = q @ k.mT
            if encoding == "alibi":
                found = found - math.sqrt(self.arm.head_size) * self._penalty(distances)
            return found
        found = q.new_zeros(*q.shape[:3], k.shape[2])
        (q1, q2), (k1, k2) = q.chunk(2, dim=-1), k.chunk(2, dim=-1)
        for pair, freq in enumerate(self.inv_freq.tolist()):
            a, b = q1[..., pair, None], q2[..., pair, None]
            c, d = k1[..., pair][:, :, None], k2[..., pair][:, :, None]
            angles = distances.double() * freq
            decay = float(self.log_decay[pair])
            size = (distances.double() * decay).exp() if encoding == "xpos" else 1.0
            cos, sin = (size * angles.cos()).to(q.dtype), (size * angles.sin()).to(q.dtype)
            found += (a * c + b * d) * cos + (a * d - b * c) * sin
        return found

    def _penalty(self, distances: Tensor) -> Tensor:
        return (self.slopes.to(distances.device)[:, None, None] * distances).float()

    def _turned(self, x: Tensor, positions: Tensor, growth: Tensor) -> Tensor:
        size = (positions[:, None] * growth).exp()
        angles = positions[:, None] * self.inv_freq.to(positions.device)
        cos, sin = (angles.cos() * size).to(x.dtype), (angles.sin() * size).to(x.dtype)
        first, second = x.chunk(2, dim=-1)
        return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


class Layer(nn.Module):
    """Attention and a gated product, both after a norm."""

    def __init__(self, arm: Arm) -> None:
        super().__init__()
        self.arm, width = arm, arm.width
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(2 * width, width, bias=False)
        self.norms = nn.ModuleList([nn.RMSNorm(width), nn.RMSNorm(width)])
        if arm.sink == "logit":
            self.sink_logits = nn.Parameter(torch.zeros(arm.num_heads))
        if arm.sink == "gate":
            self.gate = nn.Linear(width, width)

    def forward(
        self, x: Tensor, positions: Positions, distances: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return the output [batch, seq, width], and the weights [batch, heads, seq, seq]."""
        arm, normed = self.arm, self.norms[0](x)
        parts = self.qkv(normed).unflatten(-1, (3, arm.num_heads, arm.head_size))
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        if distances is None:
            scores = positions.scores(q, k)
            seen = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device)
            unseen = ~seen.tril()
        else:
            scores, unseen = positions.scores_at(q, k, distances), distances < 0
        scores = (scores / math.sqrt(arm.head_size)).masked_fill(unseen, -torch.inf)
        weights = self._weights(scores)
        y = (weights @ v).transpose(1, 2).flatten(2)
        if arm.sink == "gate":
            y = y * self.gate(normed).sigmoid()
        x = x + self.out(y)
        a, b = self.up(self.norms[1](x)).chunk(2, dim=-1)
        return x + self.down(functional.silu(a) * b), weights

    def _weights(self, scores: Tensor) -> Tensor:
        """Return the softmax of scores; a sink's logit joins its denominator."""
        if self.arm.sink not in ("softmax1", "logit"):
            return scores.softmax(-1)
        zeros = scores.new_zeros(self.arm.num_heads)
        logits = zeros if self.arm.sink == "softmax1" else self.sink_logits
        extra = logits[:, None, None].expand(*scores.shape[:3], 1)
        return torch.cat((scores, extra), dim=-1).softmax(-1)[..., :-1]


class Decoder(nn.Module):
    """Predict the next byte.

    Args:
        arm: the choices.
    """

    def __init__(self, arm: Arm) -> None:
        super().__init__()
        self.arm = arm
        self.embed = nn.Embedding(VOCAB_SIZE, arm.width)
        self.positions = Positions(arm)
        self.layers = nn.ModuleList(Layer(arm) for _ in range(arm.num_layers))
        self.norm = nn.RMSNorm(arm.width)
        self.head = nn.Linear(arm.width, VOCAB_SIZE, bias=False)
        for parameter in self.parameters():
            if parameter.ndim == 2:
                nn.init.normal_(parameter, std=0.05)

    def forward(
        self, ids: Tensor, distances: Tensor | None = None, places: Tensor | None = None
    ) -> Tensor:
        """Return logits [batch, seq, 257].

        Args:
            ids: int64, [batch, seq].
            distances: of each query to each key, `HIDDEN` for those unseen, [seq, seq]; None for a
                text read as in training.
            places: learned positions of the tokens, [seq]; else 0, 1, 2...
        """
        x, _ = self._run(ids, distances, places)
        logits: Tensor = self.head(self.norm(x))
        return logits

    def attention_weights(self, ids: Tensor) -> list[Tensor]:
        """Return each layer's weights [batch, heads, seq, seq] of texts read as in training."""
        return self._run(ids, None, None)[1]

    def _run(
        self, ids: Tensor, distances: Tensor | None, places: Tensor | None
    ) -> tuple[Tensor, list[Tensor]]:
        if places is None:
            places = torch.arange(ids.shape[1], device=ids.device)
        x, shown = self.positions.inputs(self.embed(ids), places), []
        for layer in self.layers:
            x, weights = layer(x, self.positions, distances)
            shown.append(weights)
        return x, shown
