"""Scratch blocks: copies of sinks, turned to the distance that a row of queries needs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence


class TurnedSinks:
    """Give out sets of scratch blocks and remember which sinks each set holds.

    A request's own sink blocks stay as they were written. A set serves all steps in which the
    window of its request begins at the same block. The set used least recently is overwritten
    first.

    Args:
        sets: block ids of each set.
    """

    def __init__(self, sets: Sequence[tuple[int, ...]]) -> None:
        self._free = list(sets)
        self._held: OrderedDict[tuple[int, int], tuple[int, ...]] = OrderedDict()
        self._in_step: set[tuple[int, int]] = set()

    def begin_step(self) -> None:
        """Allow the sets of the last step to be overwritten."""
        self._in_step.clear()

    def claim(self, request: int, distance: int) -> tuple[tuple[int, ...], bool]:
        """Return a set for sinks moved by `distance` positions, and whether it must be written.

        Args:
            request: identity of the request, here its first block.
            distance: positions by which its sinks are moved.

        Raises:
            RuntimeError: the step has more rows than there are sets.
        """
        key = (request, distance)
        self._in_step.add(key)
        if key in self._held:
            self._held.move_to_end(key)
            return self._held[key], False
        if not self._free:
            oldest, blocks = self._held.popitem(last=False)
            if oldest in self._in_step:
                raise RuntimeError(f"a step has more than {len(self._held) + 1} rows of queries")
            self._free.append(blocks)
        blocks = self._free.pop()
        self._held[key] = blocks
        return blocks, True

    def forget(self, request: int) -> None:
        """Drop the sets of a request whose sinks are written anew."""
        for key in [key for key in self._held if key[0] == request]:
            self._free.append(self._held.pop(key))
