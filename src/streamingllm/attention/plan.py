"""Plan of a forward pass: the keys that each query sees, and their distances.

The query at stream position t sees its window, which ends with itself, and the sinks that have
left it. A window of l tokens is {t-l+1..t}. Its length l is m once the stream is that old. It is
less where eviction by whole turns has dropped the rest of a turn. With c sinks outside the window
the query stands at cache position c + l - 1. Sink number i is then at distance c + l - 1 - i. Once
the cache is full that is the constant n + m - 1 - i (paper, section 3.2; positions "within the
cache"). A sink inside the window is an ordinary window token, and its own copy is masked.

Key columns are laid out as [sinks | window tokens from earlier passes | tokens of this pass] or,
for one token a stream, as the cache's buffer itself: [sinks | ring slots].
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from streamingllm.positions.base import PositionEncoding, Shift


@dataclass(frozen=True)
class Chunk:
    """The tokens of one forward pass.

    Args:
        start: tokens each stream has seen before, int64, [rows]; rows is 1 when all streams agree
            and nothing is padding, else the batch size.
        positions: stream position of each token, int64, [rows, seq].
        valid: False at padding, bool, [rows, seq]; None without padding.
        origin: stream position that the model calls 0, int64, [rows].
        batch_size: streams in the batch.
        visible_from: first stream position that eviction by turns leaves visible to each token,
            int64, [rows, seq]; None where tokens are evicted one by one.
    """

    start: Tensor
    positions: Tensor
    valid: Tensor | None
    origin: Tensor
    batch_size: int
    visible_from: Tensor | None = None

    @property
    def num_tokens(self) -> int:
        """Tokens per stream in this pass, padding included."""
        return self.positions.shape[1]

    @property
    def aligned(self) -> bool:
        """Return whether all streams stand at the same position, so that one row describes all."""
        return self.start.shape[0] == 1 and self.valid is None

    @property
    def model_positions(self) -> Tensor:
        """Positions as the model should encode them, int64, [rows, seq]."""
        return self.positions - self.origin[:, None]

    @cached_property
    def end(self) -> Tensor:
        """Tokens each stream has seen after this pass, int64, [rows]."""
        if self.valid is None:
            return self.start + self.num_tokens
        return self.start + self.valid.sum(1)

    @cached_property
    def padding(self) -> int:
        """Most padding tokens in any stream."""
        return 0 if self.valid is None else int((~self.valid).sum(1).max())


@dataclass(frozen=True)
class Block:
    """A run of queries and the window columns they may see.

    `mask` is True where a query sees a column: bool, [rows, 1, queries, sinks + keys]; None if all.
    Blocks of the same `band` have the same mask and the same distances.
    """

    queries: slice
    keys: slice
    mask: Tensor | None
    band: int


@dataclass(frozen=True)
class WindowPlan:
    """The plan of all layers that share sinks and window.

    Args:
        chunk: the tokens of this pass.
        sink_positions: stream positions of the sinks, int64, ascending, [n].
        window_size: tokens a query sees, itself included (m).
    """

    chunk: Chunk
    sink_positions: Tensor
    window_size: int
    _blocks: dict[int, tuple[Block, ...]] = field(default_factory=dict)
    _shifts: dict[tuple[int, torch.dtype], Shift | None] = field(default_factory=dict)
    _added: dict[tuple[int, int, int, torch.dtype], Tensor | None] = field(default_factory=dict)

    @cached_property
    def in_place(self) -> bool:
        """Return whether the key columns are the cache's own entries: a pass of one token."""
        return self.chunk.num_tokens == 1 and self.chunk.valid is None

    @cached_property
    def num_old(self) -> int:
        """Window columns that come from earlier passes."""
        return min(int(self.chunk.start.max()), self.window_size)

    @cached_property
    def num_sinks(self) -> int:
        """Sink columns: all n, or 0 while no query of this pass has one outside its window."""
        return len(self.sink_positions) if bool((self.sinks_outside > 0).any()) else 0

    @cached_property
    def sink_shift(self) -> Tensor | None:
        """Positions that queries move by to stand at their cache position, int64, [rows, seq].

        None when no query has to move, which is so until the first eviction.
        """
        if not self.num_sinks:
            return None
        shift = self._cache_positions - self.chunk.model_positions
        shift = torch.where(self.sinks_outside > 0, shift, torch.zeros_like(shift))
        return shift if bool(shift.any()) else None

    def blocks(self, num_queries: int) -> tuple[Block, ...]:
        """Return the queries in runs of `num_queries`, each with the columns it may see."""
        if num_queries not in self._blocks:
            self._blocks[num_queries] = tuple(self._make_blocks(num_queries))
        return self._blocks[num_queries]

    @cached_property
    def window_positions(self) -> Tensor:
        """Stream position of each window column, negative where empty, int64, [rows, keys]."""
        chunk, m = self.chunk, self.window_size
        device = chunk.positions.device
        if self.in_place:
            slots = torch.arange(min(int(chunk.end.max()), m), device=device)
            return chunk.positions - (chunk.positions - slots) % m
        old = chunk.start[:, None] - self.num_old + torch.arange(self.num_old, device=device)
        new = chunk.positions
        if chunk.valid is not None:
            new = new.masked_fill(~chunk.valid, -1)
        return torch.cat((old, new), dim=1)

    def shift_queries(self, q: Tensor, encoding: PositionEncoding) -> Tensor:
        """Return `q` [batch, num_heads, seq, head_dim] as the sinks see it."""
        if self.sink_shift is None:
            return q
        key = (id(encoding), q.dtype)
        if key not in self._shifts:
            self._shifts[key] = encoding.shift(self.sink_shift, like=q)
        shift = self._shifts[key]
        return q if shift is None else shift.queries(q)

    def additive_mask(
        self, block: Block, encoding: PositionEncoding, dtype: torch.dtype
    ) -> Tensor | None:
        """Return a block's mask and its encoding's bias as one tensor to add to scores.

        [rows, 1 or num_heads, queries, sinks + keys], or None if there is nothing to add. Masks are
        remembered, because the layers of a pass take the same ones in turn. Biases are num_heads
        times as large, so only the last is remembered.
        """
        owner = id(encoding) if encoding.has_bias else 0
        num_queries = block.queries.stop - block.queries.start
        key = (owner, block.band, num_queries, dtype)
        if key not in self._added:
            if encoding.has_bias:
                self._added.clear()
            self._added[key] = self._make_additive_mask(block, encoding, dtype)
        return self._added[key]

    def distances(self, block: Block) -> Tensor:
        """Return distances inside the cache, int64, [rows, queries, sinks + keys]."""
        query = self.chunk.positions[:, block.queries, None]
        to_window = query - self.window_positions[:, None, block.keys]
        if not self.num_sinks:
            return to_window
        numbers = torch.arange(self.num_sinks, device=query.device)
        to_sinks = self._cache_positions[:, block.queries, None] - numbers
        return torch.cat((to_sinks, to_window), dim=-1)

    @cached_property
    def window_starts(self) -> Tensor:
        """First stream position of each query's window, int64, [rows, seq]."""
        starts = (self.chunk.positions - self.window_size + 1).clamp(min=0)
        if self.chunk.visible_from is None:
            return starts
        return torch.maximum(starts, self.chunk.visible_from)

    @cached_property
    def window_lengths(self) -> Tensor:
        """Tokens in each query's window, itself included, int64, [rows, seq]."""
        return self.chunk.positions - self.window_starts + 1

    @cached_property
    def sinks_outside(self) -> Tensor:
        """Sinks that have left each query's window, [rows, seq]."""
        return torch.searchsorted(self.sink_positions, self.window_starts.contiguous())

    @cached_property
    def _cache_positions(self) -> Tensor:
        """Cache position of each query, int64, [rows, seq]."""
        return self.sinks_outside + self.window_lengths - 1

    def _make_blocks(self, num_queries: int) -> Iterator[Block]:
        num_keys = self.window_positions.shape[1]
        steady: dict[tuple[int, int], Block] = {}
        for first in range(0, self.chunk.num_tokens, num_queries):
            last = min(first + num_queries, self.chunk.num_tokens)
            queries = slice(first, last)
            if self.in_place:
                keys = slice(0, num_keys)
            else:
                reach = self.num_old + first - (self.window_size - 1) - self.chunk.padding
                keys = slice(max(0, reach), self.num_old + last)
            # Past the start of a stream every block of the same size has the same band.
            shape = (last - first, keys.stop - keys.start)
            same = steady.get(shape)
            if same is None:
                block = Block(queries, keys, self._mask(queries, keys), band=first)
                if self.chunk.aligned and self._is_steady(first):
                    steady[shape] = block
            else:
                block = Block(queries, keys, same.mask, same.band)
            yield block

    def _is_steady(self, first_query: int) -> bool:
        if self.chunk.visible_from is not None:
            return False
        outside = self.sinks_outside[0, first_query]
        position = self.chunk.positions[0, first_query]
        return bool(position >= self.window_size) and int(outside) == len(self.sink_positions)

    def _make_additive_mask(
        self, block: Block, encoding: PositionEncoding, dtype: torch.dtype
    ) -> Tensor | None:
        bias = encoding.bias(self.distances(block), dtype) if encoding.has_bias else None
        if block.mask is None:
            return bias
        if bias is None:
            bias = torch.zeros((), dtype=dtype, device=block.mask.device)
        return torch.where(block.mask, bias, torch.finfo(dtype).min / 2)

    def _mask(self, queries: slice, keys: slice) -> Tensor | None:
        query = self.chunk.positions[:, queries, None]
        key = self.window_positions[:, None, keys]
        start = self.window_starts[:, queries, None]
        seen = (key <= query) & (key >= start)
        if self.num_sinks:
            to_sinks = self.sink_positions < start
            seen = torch.cat((to_sinks, seen), dim=-1)
        return None if bool(seen.all()) else seen[:, None]
