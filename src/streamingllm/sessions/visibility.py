"""Count what a model still sees of a session: a window is not a memory."""

from __future__ import annotations

from dataclasses import dataclass

from streamingllm.sessions.transcript import Transcript


@dataclass(frozen=True)
class Visibility:
    """Count what is visible and what is forgotten.

    Args:
        num_seen_tokens: tokens of the session so far.
        num_visible_tokens: those whose keys and values are cached.
        num_pinned_tokens: length of the pinned prefix.
        num_turns: turns so far.
        num_forgotten_turns: first turns of which the window shows nothing.
        is_cut: whether the window shows only the end of the first turn that is not forgotten.
    """

    num_seen_tokens: int
    num_visible_tokens: int
    num_pinned_tokens: int
    num_turns: int
    num_forgotten_turns: int
    is_cut: bool

    @property
    def num_forgotten_tokens(self) -> int:
        """Tokens whose keys and values are evicted."""
        return self.num_seen_tokens - self.num_visible_tokens

    @classmethod
    def of(
        cls,
        transcript: Transcript,
        *,
        num_seen_tokens: int,
        num_pinned_tokens: int,
        first_visible: int,
    ) -> Visibility:
        """Find by bisection what a window shows of a transcript.

        Args:
            transcript: of the session.
            num_seen_tokens: tokens fed so far.
            num_pinned_tokens: length of the pinned prefix.
            first_visible: stream position of the first token in the window; negative or 0 while
                nothing has been evicted.
        """
        first = max(0, first_visible)
        pinned = min(num_pinned_tokens, num_seen_tokens)
        evicted = max(0, first - pinned)
        forgotten = transcript.num_turns_before(first)
        is_cut = (
            forgotten < transcript.num_turns
            and transcript[transcript.turn_start(forgotten)].first < first
        )
        return cls(
            num_seen_tokens=num_seen_tokens,
            num_visible_tokens=num_seen_tokens - evicted,
            num_pinned_tokens=num_pinned_tokens,
            num_turns=transcript.num_turns,
            num_forgotten_turns=forgotten,
            is_cut=is_cut,
        )

    def describe(self) -> str:
        """Return one line for people."""
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
