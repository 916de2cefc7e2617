"""Stream positions of a batch: tokens seen, and how far each stream can go back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from streamingllm.attention.plan import Chunk
from streamingllm.cache.turns import TurnStarts
from streamingllm.errors import RewindError


def _zero() -> Tensor:
    return torch.zeros(1, dtype=torch.int64)


@dataclass
class StreamPositions:
    """Count tokens per stream; a single row stands for all streams while they agree.

    Args:
        seen: tokens fed to each stream, one number per row.
        origin: stream position that the model calls 0, int64, [rows].
        oldest: first overwritten stream position that can come back, one number per row.
        num_columns: tokens fed to the whole batch, padding included, as `generate` counts them.
        turns: where windows of each stream may begin, one entry per row; None for anywhere.
    """

    seen: list[int] = field(default_factory=lambda: [0])
    origin: Tensor = field(default_factory=_zero)
    oldest: list[int] = field(default_factory=lambda: [0])
    num_columns: int = 0
    turns: list[TurnStarts] | None = None

    def chunk(
        self, batch_size: int, num_tokens: int, valid: Tensor | None, device: torch.device
    ) -> Chunk:
        """Return the next `num_tokens` columns of every stream; `valid` is False at padding."""
        seen, origin = torch.tensor(self.seen, device=device), self.origin.to(device)
        if valid is None:
            positions = seen[:, None] + torch.arange(num_tokens, device=device)
        else:
            seen, origin = seen.expand(batch_size), origin.expand(batch_size)
            positions = seen[:, None] + valid.long().cumsum(1) - 1
        return Chunk(seen, positions, valid, origin, batch_size, self._visible_from(positions))

    def _visible_from(self, positions: Tensor) -> Tensor | None:
        if self.turns is None:
            return None
        turns = _expanded(self.turns, len(positions))
        rows = zip(turns, positions, strict=True)
        return torch.stack([starts.first_visible_of(row) for starts, row in rows])

    def first_visible(self, row: int, position: int, window_size: int) -> int:
        """Return where the window of a stream's token at `position` begins.

        Args:
            row: stream of the batch.
            position: stream position of the token.
            window_size: tokens that the layer's window holds at most.
        """
        oldest = max(0, position - window_size + 1)
        if self.turns is None:
            return oldest
        turns = self.turns[row if len(self.turns) > 1 else 0]
        return max(oldest, turns.first_visible(position))

    def begin_turn(self) -> None:
        """Begin a turn with the next token of every stream; without effect if evicted by token."""
        if self.turns is None:
            return
        self._split_turns()
        for turns, seen in zip(self.turns, _expanded(self.seen, len(self.turns)), strict=True):
            turns.begin(seen)

    def _split_turns(self) -> None:
        """Give each stream its own turns once streams stand at different positions."""
        if self.turns is not None and len(self.turns) < len(self.seen):
            self.turns = [self.turns[0].copy() for _ in self.seen]

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
        self._forget_turns()

    def _forget_turns(self, fed_again: list[int] | None = None) -> None:
        if self.turns is None:
            return
        again = fed_again or [0]
        rows = max(len(self.turns), len(again), len(self.oldest))
        seen = [
            t + more
            for t, more in zip(_expanded(self.seen, rows), _expanded(again, rows), strict=True)
        ]
        oldest = _expanded(self.oldest, rows)
        if len(self.turns) == 1:
            self.turns[0].forget(min(oldest), max(seen))
            return
        for turns, old, t in zip(self.turns, oldest, seen, strict=True):
            turns.forget(old, t)

    def skip_to(self, position: int) -> None:
        """Stand at a later stream position; nothing before it can come back."""
        self.num_columns += position - max(self.seen)
        self.oldest = self.seen = [position for _ in self.seen]

    def per_stream(self, batch_size: int) -> list[int]:
        """Return the tokens fed to each of `batch_size` streams."""
        return _expanded(self.seen, batch_size)

    def reach(self, batch_size: int, window_size: int) -> list[int]:
        """Return how many tokens can be taken off each stream now."""
        oldest = _expanded(self.oldest, batch_size)
        pairs = zip(self.per_stream(batch_size), oldest, strict=True)
        return [t - old - window_size if old > 0 else t for t, old in pairs]

    def max_rewind(self, batch_size: int, window_size: int) -> list[int]:
        """Return how many tokens each stream can be rewound by now and go on from there.

        Going on needs the logits of the last token that stays. It is taken off too and fed again,
        so one token less than `reach`, except back to the start of the stream.
        """
        pairs = zip(self.reach(batch_size, window_size), self.per_stream(batch_size), strict=True)
        return [reach if reach >= seen else max(0, reach - 1) for reach, seen in pairs]

    def rewind(self, back: list[int], window_size: int, fed_again: list[int] | None = None) -> None:
        """Take `back` tokens off each stream.

        Args:
            back: tokens to take off, one number per stream.
            window_size: of the layer that sees least.
            fed_again: of them, tokens that are fed again at once; their turns stay.

        Raises:
            RewindError: a number is negative, more than was fed, or more than can come back.
        """
        seen, reach = self.per_stream(len(back)), self.reach(len(back), window_size)
        most = max(back)
        if min(back) < 0:
            raise RewindError(f"num_tokens={min(back)} is negative; give a whole number >= 0")
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
        self._split_turns()
        self._forget_turns(fed_again)

    def select(self, rows: Tensor) -> None:
        """Keep the given streams, int64, [new_batch]."""
        chosen = rows.tolist()
        self.seen = _selected(self.seen, chosen)
        self.oldest = _selected(self.oldest, chosen)
        if self.turns is not None and len(self.turns) > 1:
            self.turns = [self.turns[row].copy() for row in chosen]
        if len(self.origin) > 1:
            self.origin = self.origin[rows.to(self.origin.device)]

    def copy(self) -> StreamPositions:
        """Return independent positions."""
        turns = None if self.turns is None else [starts.copy() for starts in self.turns]
        return replace(self, turns=turns)

    def to_json(self) -> dict[str, Any]:
        """Return the counters as plain numbers."""
        return {
            "seen": self.seen,
            "origin": self.origin.tolist(),
            "oldest": self.oldest,
            "num_columns": self.num_columns,
            "turns": None if self.turns is None else [turns.to_list() for turns in self.turns],
        }

    @classmethod
    def from_json(
        cls, facts: dict[str, Any], starts_of: Callable[[list[int]], TurnStarts | None]
    ) -> StreamPositions:
        """Return the positions that `to_json` described.

        Args:
            facts: what it returned.
            starts_of: returns where the windows of a stream may begin that has had some turns.
        """
        rows = [starts_of(row) for row in facts["turns"] or [[]]]
        return cls(
            seen=facts["seen"],
            origin=torch.tensor(facts["origin"]),
            oldest=facts["oldest"],
            num_columns=facts["num_columns"],
            turns=[starts for starts in rows if starts is not None] or None,
        )


_T = TypeVar("_T")


def _expanded(counter: list[_T], rows: int) -> list[_T]:
    return counter if len(counter) == rows else counter * rows


def _selected(counter: list[int], rows: list[int]) -> list[int]:
    return counter if len(counter) == 1 else [counter[row] for row in rows]
