"""What of a conversation a model still sees: a window is not a memory."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Visibility:
    """Count what is visible and what is forgotten.

    Args:
        num_seen_tokens: tokens of the conversation so far.
        num_visible_tokens: those whose keys and values are held.
        num_pinned_tokens: first tokens that are held for ever.
        num_turns: turns so far.
        num_forgotten_turns: first turns of which nothing is visible.
        is_cut: whether of the first visible turn only the end is visible.
    """

    num_seen_tokens: int
    num_visible_tokens: int
    num_pinned_tokens: int
    num_turns: int
    num_forgotten_turns: int
    is_cut: bool

    @property
    def num_forgotten_tokens(self) -> int:
        """Tokens that no longer have any keys and values."""
        return self.num_seen_tokens - self.num_visible_tokens

    def describe(self) -> str:
        """Say it in one line."""
        counts = f"{self.num_seen_tokens:,} tokens seen, {self.num_visible_tokens:,} visible"
        if self.num_turns == 0:
            return f"{counts}; no turns yet"
        if self.num_forgotten_tokens == 0:
            return f"{counts}: all turns"
        first = self.num_forgotten_turns + 1
        cut = f" ({first} in part)" if self.is_cut else ""
        forgotten = f"; forgotten: {_turns(1, first - 1)}" if first > 1 else ""
        return (
            f"{counts}, {self.num_forgotten_tokens:,} forgotten; "
            f"visible: {_turns(first, self.num_turns)}{cut} and the first "
            f"{self.num_pinned_tokens:,} tokens{forgotten}"
        )


def _turns(first: int, last: int) -> str:
    return f"turn {first}" if first == last else f"turns {first}-{last}"
