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
class StreamClock:
    """Count tokens per stream; a single row speaks for all streams while they agree.

    Args:
        seen: tokens fed to each stream, int64, [rows].
        origin: stream position that the model calls 0, int64, [rows].
        oldest: first overwritten stream position that is still remembered, int64, [rows].
        num_columns: tokens fed to the whole batch, padding included, as `generate` counts them.
    """

    seen: Tensor = field(default_factory=_zero)
    origin: Tensor = field(default_factory=_zero)
    oldest: Tensor = field(default_factory=_zero)
    num_columns: int = 0

    def chunk(
        self, batch_size: int, num_tokens: int, valid: Tensor | None, device: torch.device
    ) -> Chunk:
        """Return the next `num_tokens` columns of every stream; `valid` is False at padding."""
        seen, origin = self.seen.to(device), self.origin.to(device)
        if valid is None:
            steps = torch.arange(num_tokens, device=device)
            return Chunk(seen, seen[:, None] + steps, None, origin, batch_size)
        seen, origin = seen.expand(batch_size), origin.expand(batch_size)
        positions = seen[:, None] + valid.long().cumsum(1) - 1
        return Chunk(seen, positions, valid, origin, batch_size)

    def advance(self, chunk: Chunk, remembered: int) -> None:
        """Count a chunk that has been fed; each stream remembers its last `remembered` tokens."""
        self.seen, self.origin = chunk.end, chunk.origin
        self.oldest = torch.maximum(self.oldest.to(chunk.end.device), chunk.end - remembered)
        self.num_columns += chunk.num_tokens

    def advance_one(self, remembered: int) -> None:
        """Count one token for every stream."""
        self.seen = self.seen + 1
        self.oldest = torch.maximum(self.oldest.to(self.seen.device), self.seen - remembered)
        self.num_columns += 1

    def jump_to(self, position: int) -> None:
        """Stand at a later stream position; nothing before it can be gone back to."""
        self.num_columns += position - int(self.seen.max())
        self.oldest = self.seen = torch.full_like(self.seen, position)

    def per_stream(self, batch_size: int) -> Tensor:
        """Return the tokens fed to each of `batch_size` streams, int64, [batch]."""
        return self.seen.expand(batch_size).clone()

    def reach(self, batch_size: int, window_size: int) -> Tensor:
        """Return how many tokens each stream can go back now, int64, [batch]."""
        seen = self.per_stream(batch_size)
        oldest = self.oldest.to(seen.device).expand(batch_size)
        return torch.where(oldest > 0, seen - oldest - window_size, seen)

    def rewind(self, back: Tensor, window_size: int) -> None:
        """Take `back` tokens off each stream, int64, [batch].

        Raises:
            RewindError: a number is negative, more than was fed, or more than is remembered.
        """
        seen, reach = self.per_stream(len(back)), self.reach(len(back), window_size)
        most = int(back.max())
        if int(back.min()) < 0:
            raise RewindError(f"num_tokens={int(back.min())}: must be a whole number >= 0")
        if bool((back > seen).any()):
            raise RewindError(f"num_tokens={most}: only {int(seen.min())} tokens have been fed")
        if bool((back > reach).any()):
            raise RewindError(
                f"num_tokens={most}: after eviction a stream goes back at most "
                f"{max(0, int(reach.min()))} tokens now; set max_rewind_tokens higher"
            )
        self.seen = _merged(seen - back)
        self.num_columns -= most

    def select(self, rows: Tensor) -> None:
        """Keep the given streams, int64, [new_batch]."""
        for name in ("seen", "origin", "oldest"):
            counter: Tensor = getattr(self, name)
            if len(counter) > 1:
                setattr(self, name, counter[rows.to(counter.device)])

    def copy(self) -> StreamClock:
        """Return an independent clock that shows the same."""
        return replace(self)

    def to_json(self) -> dict[str, list[int]]:
        """Return the counters as plain numbers."""
        counters = {"seen": self.seen, "origin": self.origin, "oldest": self.oldest}
        numbers = {name: counter.tolist() for name, counter in counters.items()}
        return numbers | {"num_columns": [self.num_columns]}

    @classmethod
    def from_json(cls, facts: dict[str, list[int]]) -> StreamClock:
        """Return the clock that `to_json` described."""
        seen, origin, oldest = (torch.tensor(facts[n]) for n in ("seen", "origin", "oldest"))
        return cls(seen, origin, oldest, facts["num_columns"][0])


def _merged(counter: Tensor) -> Tensor:
    """Let one row speak for all where all agree."""
    return counter[:1] if bool((counter == counter[0]).all()) else counter
