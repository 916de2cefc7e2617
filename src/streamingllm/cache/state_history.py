"""Record of what a rewind of recurrent states needs: checkpoint positions and recent ids."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from streamingllm.cache.state_layer import NUM_CHECKPOINTS

_EMPTY = -1


class StateHistory:
    """Remember where each stream's checkpoints stand, and the ids since then.

    A recurrent state cannot be taken back. A stream goes back to a checkpoint, and the ids after it
    are fed again. Each stream has two checkpoints, `interval` tokens apart where passes allow it.
    So it can go back at least `interval` tokens, and at most twice as many are fed again.

    Args:
        interval: tokens between two checkpoints; 0 for none.
        num_remembered: ids that each stream remembers.
    """

    def __init__(self, interval: int, num_remembered: int) -> None:
        self.interval = interval
        self.num_remembered = num_remembered
        self.positions: list[list[int]] = []
        self._ids: list[list[int]] = []
        self._is_complete = True

    def begin(self, num_streams: int) -> None:
        """Take the number of streams from the first pass."""
        if not self.positions:
            self.positions = [[_EMPTY] * NUM_CHECKPOINTS for _ in range(num_streams)]
            self._ids = [[] for _ in range(num_streams)]

    def since_checkpoint(self, row: int, seen: int) -> int:
        """Return the tokens that a stream has seen since its last checkpoint, or its start."""
        return seen - max(0, *self.positions[row]) if self.positions else seen

    def due(self, seen: list[int]) -> list[tuple[int, int]]:
        """Return (row, checkpoint number) for each stream that needs a checkpoint now.

        Args:
            seen: tokens that each stream has seen.
        """
        if not self.interval:
            return []
        chosen = []
        for row, (t, at) in enumerate(zip(seen, self.positions, strict=True)):
            if self.since_checkpoint(row, t) >= self.interval:
                chosen.append((row, at.index(min(at))))
        return chosen

    def extend(self, ids: Tensor | None, active: list[bool]) -> None:
        """Remember the ids of a pass.

        Args:
            ids: int64, [batch, seq]; None where vectors were fed, which are not remembered.
            active: streams that got tokens, all of the pass's; the others got none.
        """
        if ids is None:
            self._is_complete = False
            self._ids = [[] for _ in self._ids]
            return
        for own, new, is_active in zip(self._ids, ids.tolist(), active, strict=True):
            if is_active:
                own += new
                del own[: -self.num_remembered]

    def base(self, row: int, seen: int, target: int, *, from_start: bool) -> int | None:
        """Return the latest stream position to feed again from in order to stand at `target`.

        Args:
            row: the stream.
            seen: tokens that it has seen.
            target: tokens that it shall have seen.
            from_start: whether nothing has been evicted that a restart would need.

        Returns:
            a checkpoint's position, 0 for a restart, None if the stream cannot go back.
        """
        start = 0 if from_start and self._is_complete else _EMPTY
        base = max([start, *(at for at in self.positions[row] if _EMPTY < at <= target)])
        known = len(self._ids[row]) >= seen - base
        return base if base != _EMPTY and (known or base == target) else None

    def reach(self, row: int, seen: int, most: int, *, from_start: bool) -> int:
        """Return how many tokens can be taken off a stream now; see `base`.

        Args:
            row: the stream.
            seen: tokens that it has seen.
            most: tokens that its keys and values can go back by.
            from_start: see `base`.
        """
        if from_start and self._is_complete:
            return seen
        most = min(most, len(self._ids[row]))
        reaches = [seen - at for at in self.positions[row] if at != _EMPTY]
        return max((reach for reach in reaches if reach <= most), default=0)

    def take_back(self, row: int, seen: int, base: int, target: int) -> list[int]:
        """Forget what follows `base` in a stream; return the ids from there to `target`."""
        own = self._ids[row]
        first = max(0, len(own) - (seen - base))
        again = own[first : first + target - base]
        del own[first:]
        at = self.positions[row]
        self.positions[row] = [_EMPTY if position > base else position for position in at]
        return again

    def select(self, rows: list[int]) -> None:
        """Keep the given streams."""
        self.positions = [[*self.positions[row]] for row in rows]
        self._ids = [[*self._ids[row]] for row in rows]

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain numbers."""
        return {
            "positions": [[*at] for at in self.positions],
            "ids": [[*own] for own in self._ids],
            "is_complete": self._is_complete,
        }

    def load(self, facts: dict[str, Any]) -> None:
        """Take over what `to_json` returned."""
        self.positions = [[*at] for at in facts["positions"]]
        self._ids = [[*own] for own in facts["ids"]]
        self._is_complete = facts["is_complete"]
