"""How far each stream of a cache has come."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from streamingllm.attention.plan import Chunk
from streamingllm.errors import RewindError


def _zero() -> Tensor:
    return torch.zeros(1, dtype=torch.int64)


@dataclass
class StreamPositions:
    """Count tokens per stream; a single row speaks for all streams while they agree.

    Args:
        seen: tokens fed to each stream, one number per row.
        origin: stream position that the model calls 0, int64, [rows].
        oldest: first overwritten stream position that is still remembered, one number per row.
        num_columns: tokens fed to the whole batch, padding included, as `generate` counts them.
    """

    seen: list[int] = field(default_factory=lambda: [0])
    origin: Tensor = field(default_factory=_zero)
    oldest: list[int] = field(default_factory=lambda: [0])
    num_columns: int = 0

    def chunk(
        self, batch_size: int, num_tokens: int, valid: Tensor | None, device: torch.device
    ) -> Chunk:
        """Return the next `num_tokens` columns of every stream; `valid` is False at padding."""
        seen, origin = torch.tensor(self.seen, device=device), self.origin.to(device)
        if valid is None:
            steps = torch.arange(num_tokens, device=device)
            return Chunk(seen, seen[:, None] + steps, None, origin, batch_size)
        seen, origin = seen.expand(batch_size), origin.expand(batch_size)
        positions = seen[:, None] + valid.long().cumsum(1) - 1
        return Chunk(seen, positions, valid, origin, batch_size)

    def advance(self, chunk: Chunk, remembered: int) -> None:
        """Count a chunk that has been fed; each stream remembers its last `remembered` tokens."""
        if chunk.valid is None:
            self._count([t + chunk.num_tokens for t in self.seen], remembered)
        else:
            self._count(chunk.end.tolist(), remembered)
        self.origin = chunk.origin
        self.num_columns += chunk.num_tokens

    def advance_one(self, remembered: int) -> None:
        """Count one token for every stream."""
        self._count([t + 1 for t in self.seen], remembered)
        self.num_columns += 1

    def _count(self, seen: list[int], remembered: int) -> None:
        rows = max(len(seen), len(self.oldest))
        pairs = zip(_expanded(self.oldest, rows), _expanded(seen, rows), strict=True)
        self.seen, self.oldest = seen, [max(old, t - remembered) for old, t in pairs]

    def skip_to(self, position: int) -> None:
        """Stand at a later stream position; nothing before it can be gone back to."""
        self.num_columns += position - max(self.seen)
        self.oldest = self.seen = [position for _ in self.seen]

    def per_stream(self, batch_size: int) -> list[int]:
        """Return the tokens fed to each of `batch_size` streams."""
        return _expanded(self.seen, batch_size)

    def reach(self, batch_size: int, window_size: int) -> list[int]:
        """Return how many tokens each stream can go back now."""
        oldest = _expanded(self.oldest, batch_size)
        pairs = zip(self.per_stream(batch_size), oldest, strict=True)
        return [t - old - window_size if old > 0 else t for t, old in pairs]

    def rewind(self, back: list[int], window_size: int) -> None:
        """Take `back` tokens off each stream.

        Raises:
            RewindError: a number is negative, more than was fed, or more than is remembered.
        """
        seen, reach = self.per_stream(len(back)), self.reach(len(back), window_size)
        most = max(back)
        if min(back) < 0:
            raise RewindError(f"num_tokens={min(back)}: must be a whole number >= 0")
        if any(b > t for b, t in zip(back, seen, strict=True)):
            raise RewindError(f"num_tokens={most}: only {min(seen)} tokens have been fed")
        if any(b > r for b, r in zip(back, reach, strict=True)):
            raise RewindError(
                f"num_tokens={most}: after eviction a stream goes back at most "
                f"{max(0, min(reach))} tokens now; set max_rewind_tokens higher"
            )
        remains = [t - b for t, b in zip(seen, back, strict=True)]
        self.seen = remains[:1] if len({*remains}) == 1 else remains
        self.num_columns -= most

    def select(self, rows: Tensor) -> None:
        """Keep the given streams, int64, [new_batch]."""
        chosen = rows.tolist()
        self.seen = _selected(self.seen, chosen)
        self.oldest = _selected(self.oldest, chosen)
        if len(self.origin) > 1:
            self.origin = self.origin[rows.to(self.origin.device)]

    def copy(self) -> StreamPositions:
        """Return an independent clock that shows the same."""
        return replace(self)

    def to_json(self) -> dict[str, list[int]]:
        """Return the counters as plain numbers."""
        counters = {"seen": self.seen, "origin": self.origin.tolist(), "oldest": self.oldest}
        return counters | {"num_columns": [self.num_columns]}

    @classmethod
    def from_json(cls, facts: dict[str, list[int]]) -> StreamPositions:
        """Return the clock that `to_json` described."""
        origin = torch.tensor(facts["origin"])
        return cls(facts["seen"], origin, facts["oldest"], facts["num_columns"][0])


def _expanded(counter: list[int], rows: int) -> list[int]:
    return counter if len(counter) == rows else counter * rows


def _selected(counter: list[int], rows: list[int]) -> list[int]:
    return counter if len(counter) == 1 else [counter[row] for row in rows]
