"""Append-only sequences whose forks share the past."""

from __future__ import annotations

from collections.abc import Callable, Iterable, MutableSequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from streamingllm.errors import InputError

T = TypeVar("T")


@dataclass(frozen=True)
class _Segment(Generic[T]):
    """Items first, first + 1, ... of a log; never changed once a log points at it."""

    parent: _Segment[T] | None
    first: int
    items: MutableSequence[T]


class SharedLog(Generic[T]):
    """Append items, slice them by position, fork in constant time.

    A fork freezes what has been appended so far: both logs point at it and append to sequences of
    their own. Truncating one log leaves the other as it is.

    Args:
        new_items: makes an empty sequence, such as `list`.
    """

    def __init__(self, new_items: Callable[[], MutableSequence[T]]) -> None:
        self._new_items = new_items
        self._parent: _Segment[T] | None = None
        self._first = 0  # position of the first own item; the past before it is shared
        self._items = new_items()

    def __len__(self) -> int:
        return self._first + len(self._items)

    def __getitem__(self, position: int) -> T:
        """Return the item at a position; a negative one counts from the end."""
        at = position + len(self) if position < 0 else position
        if not 0 <= at < len(self):
            raise IndexError(f"position={position} is out of range; the log has {len(self)} items")
        if at >= self._first:
            return self._items[at - self._first]
        segment = self._parent
        while segment is not None and segment.first > at:
            segment = segment.parent
        assert segment is not None
        return segment.items[at - segment.first]

    def extend(self, items: Iterable[T]) -> None:
        """Append items."""
        self._items.extend(items)

    def slice(self, first: int = 0, stop: int | None = None) -> MutableSequence[T]:
        """Return a copy of items first..stop-1.

        Raises:
            InputError: the range does not lie within the log.
        """
        stop = len(self) if stop is None else stop
        if not 0 <= first <= stop <= len(self):
            raise InputError(
                f"first={first}, stop={stop} is no range of {len(self)} items; "
                "use 0 <= first <= stop <= length"
            )
        copied = self._new_items()
        for part in reversed(self._parts(first, stop)):
            copied.extend(part)
        return copied

    def truncate(self, length: int) -> None:
        """Keep the first `length` items; logs that share them are not changed.

        Raises:
            InputError: the log is shorter than that.
        """
        if not 0 <= length <= len(self):
            raise InputError(f"length={length} is not 0 to {len(self)}, the length of the log")
        if length >= self._first:
            del self._items[length - self._first :]
            return
        self._items, self._first = self._new_items(), length
        while self._parent is not None and self._parent.first >= length:
            self._parent = self._parent.parent

    def share_with(self, other: SharedLog[T]) -> None:
        """Make an empty log a fork of this one, in constant time."""
        assert len(other) == 0
        if self._items:
            self._parent = _Segment(self._parent, self._first, self._items)
            self._first, self._items = len(self), self._new_items()
        other._parent, other._first = self._parent, self._first

    def _parts(self, first: int, stop: int) -> list[MutableSequence[T]]:
        """Return the parts of items first..stop-1, the last one first."""
        parts = []
        segment: _Segment[T] | None = _Segment(self._parent, self._first, self._items)
        end = stop
        while segment is not None and end > first:
            if segment.first < end:
                start = max(first, segment.first)
                parts.append(segment.items[start - segment.first : end - segment.first])
                end = start
            segment = segment.parent
        return parts
