"""Copies of entries that a forward pass makes, planned once for all layers of one geometry."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

from streamingllm.attention.plan import WindowPlan
from streamingllm.positions.base import PositionEncoding


@dataclass(frozen=True)
class SlotCopies:
    """Copies from entries of one buffer to entries of another, [batch, heads, entries, head_dim].

    Args:
        source, target: entry numbers, int64, [num_copies].
        rows: stream of each move, int64, [num_copies]; None moves the same entries in every stream.
    """

    source: Tensor
    target: Tensor
    rows: Tensor | None = None

    def apply(self, source: Tensor, target: Tensor) -> None:
        """Copy, writing `target` in place."""
        if self.rows is not None:
            target[self.rows, :, self.target] = source[self.rows, :, self.source]
            return
        for run_of_source, run_of_target in self._runs:
            target[:, :, run_of_target] = source[:, :, run_of_source]

    @cached_property
    def _runs(self) -> list[tuple[slice, slice]]:
        """Runs of neighbouring entries: copying those is faster than picking entries."""
        if self.source.numel() == 0:
            return []
        both = torch.stack((self.source, self.target))
        starts = [0, *((both.diff() != 1).any(0).nonzero()[:, 0] + 1).tolist()]
        lengths = [stop - start for start, stop in pairwise((*starts, both.shape[1]))]
        firsts = both[:, starts].tolist()
        return [
            (slice(source, source + length), slice(target, target + length))
            for source, target, length in zip(*firsts, lengths, strict=True)
        ]

    def reversed(self) -> SlotCopies:
        """The same copies in the other direction."""
        return SlotCopies(self.target, self.source, self.rows)


@dataclass(frozen=True)
class ChunkCopies:
    """The copies that one pass makes in every layer of one geometry.

    Args:
        plan: what the pass's queries see.
        undo_size: overwritten entries that are remembered.
    """

    plan: WindowPlan
    undo_size: int

    @cached_property
    def new_to_ring(self) -> SlotCopies:
        """The last m tokens of the pass take their slots."""
        first = self.plan.chunk.end - self.plan.window_size
        return self._new_tokens(first, None, self.plan.window_size)

    @cached_property
    def new_to_undo(self) -> SlotCopies:
        """Tokens that the pass both brings and evicts, as far as they are remembered."""
        evicted = self.plan.chunk.end - self.plan.window_size
        if self.undo_size == 0 or bool((evicted <= self.plan.chunk.start).all()):
            return _no_copies(self.plan.chunk.positions.device)
        return self._new_tokens(evicted - self.undo_size, evicted, self.undo_size)

    @cached_property
    def ring_to_undo(self) -> SlotCopies:
        """Entries of earlier passes that the pass overwrites, as far as they are remembered."""
        chunk, m = self.plan.chunk, self.plan.window_size
        device = chunk.positions.device
        if self.undo_size == 0:
            return _no_copies(device)
        ends = (chunk.end - m).clamp(min=0)
        firsts = torch.maximum((chunk.start - m).clamp(min=0), ends - self.undo_size)
        lasts = torch.minimum(ends, chunk.start)
        rows, positions = [], []
        for row, (first, last) in enumerate(zip(firsts.tolist(), lasts.tolist(), strict=True)):
            run = torch.arange(first, max(first, last), device=device)
            positions.append(run)
            rows.append(torch.full_like(run, row))
        flat = torch.cat(positions)
        return SlotCopies(
            flat % m, flat % self.undo_size, None if chunk.aligned else torch.cat(rows)
        )

    @cached_property
    def undo_single(self) -> SlotCopies:
        """Copies that take back the one token of an in-place pass (source: undo, target: ring)."""
        return self.ring_to_undo.reversed()

    @cached_property
    def new_sinks(self) -> SlotCopies | None:
        """Tokens of the pass that are sinks, or None."""
        sinks, chunk = self.plan.sink_positions, self.plan.chunk
        if len(sinks) == 0 or int(chunk.start.min()) > int(sinks[-1]):
            return None
        is_sink = torch.isin(chunk.positions, sinks)
        if chunk.valid is not None:
            is_sink &= chunk.valid
        rows, columns = is_sink.nonzero(as_tuple=True)
        if len(rows) == 0:
            return None
        numbers = torch.searchsorted(sinks, chunk.positions[rows, columns])
        return SlotCopies(columns, numbers, None if chunk.aligned else rows)

    def copy_sinks(self, sinks: Tensor, new: Tensor, encoding: PositionEncoding | None) -> None:
        """Copy this pass's sinks, moved to their cache positions if `encoding` is given.

        Args:
            sinks: [batch, heads, n, head_dim], written in place.
            new: tokens of the pass, [batch, heads, seq, head_dim].
            encoding: what moves keys; None for tensors that carry no position.
        """
        moves, chunk = self.new_sinks, self.plan.chunk
        if moves is None:
            return
        rows = torch.zeros_like(moves.source) if moves.rows is None else moves.rows
        amount = moves.target - chunk.model_positions[rows, moves.source]
        if encoding is not None and bool(amount.any()):
            per_token = torch.zeros_like(chunk.positions)
            per_token[rows, moves.source] = amount
            shift = encoding.shift(per_token, like=new)
            new = new if shift is None else shift.keys(new)
        moves.apply(new, sinks)

    def read_ring(self, ring: Tensor) -> tuple[Tensor, ...]:
        """Return the window's earlier tokens in order, pieces [batch, heads, .., head_dim]."""
        chunk, m, num_old = self.plan.chunk, self.plan.window_size, self.plan.num_old
        if chunk.aligned:
            first = self._first_old
            if num_old < m or first == 0:
                return (ring[:, :, :num_old],)
            return ring[:, :, first:], ring[:, :, :first]
        slots = self.plan.window_positions[:, :num_old] % m
        index = slots[:, None, :, None].expand(-1, ring.shape[1], -1, ring.shape[3])
        return (ring.gather(2, index),)

    @cached_property
    def _first_old(self) -> int:
        """Entry of the oldest token of a full ring, asked of the device once for all layers."""
        return int(self.plan.chunk.start[0]) % self.plan.window_size

    def _new_tokens(self, first: Tensor, stop: Tensor | None, slots: int) -> SlotCopies:
        """Tokens at stream positions first..stop-1 of each row, to entry `position mod slots`."""
        chunk = self.plan.chunk
        taken = chunk.positions >= first[:, None]
        if stop is not None:
            taken &= chunk.positions < stop[:, None]
        if chunk.valid is not None:
            taken &= chunk.valid
        rows, columns = taken.nonzero(as_tuple=True)
        target = chunk.positions[rows, columns] % slots
        return SlotCopies(columns, target, None if chunk.aligned else rows)


def _no_copies(device: torch.device) -> SlotCopies:
    nothing = torch.zeros(0, dtype=torch.int64, device=device)
    return SlotCopies(nothing, nothing)


def rewind_copies(start: Tensor, back: Tensor, window_size: int, undo_size: int) -> SlotCopies:
    """Return the copies (undo to ring) that take `back` tokens off each stream.

    Args:
        start: tokens seen, int64, [batch].
        back: tokens to take off, int64, [batch].
        window_size: entries of the ring.
        undo_size: overwritten entries that are remembered.
    """
    rows, positions = [], []
    for row, (seen, count) in enumerate(zip(start.tolist(), back.tolist(), strict=True)):
        first = max(0, seen - count - window_size)
        # What is taken off leaves no entry to restore, though the ring has overwritten it too.
        stop = seen - max(window_size, count)
        run = torch.arange(first, max(first, stop), device=start.device)
        positions.append(run)
        rows.append(torch.full_like(run, row))
    flat = torch.cat(positions)
    return SlotCopies(flat % max(undo_size, 1), flat % window_size, torch.cat(rows))
