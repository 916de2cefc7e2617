"""Sinks and a window for every layer of a batch of streams, planned and counted together."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor

from streamingllm.attention.forward_plan import ForwardPlan
from streamingllm.attention.plan import Chunk, WindowPlan
from streamingllm.attention.step_plan import RingBuffers, StepLayout
from streamingllm.cache.geometry import RingGeometry, layer_geometries, tokens_taken_back
from streamingllm.cache.quantized_ring import QuantizedRingLayer
from streamingllm.cache.ring import RingLayer
from streamingllm.cache.slot_copies import ChunkCopies
from streamingllm.cache.state import CacheState
from streamingllm.cache.stream_positions import StreamPositions
from streamingllm.cache.turns import window_starts
from streamingllm.checks import check_integer
from streamingllm.config import StreamConfig
from streamingllm.errors import InputError, RewindError
from streamingllm.positions.base import PositionEncoding


class RingCache:
    """Keep the first n tokens and the last m of each stream of a batch.

    Args:
        config: n, m and what goes with them.
        encodings: position encoding of each layer.
        own_windows: tokens that the model lets each layer see, None for all.
        undo_size: overwritten entries that each layer remembers; None for `tokens_taken_back`.
    """

    def __init__(
        self,
        config: StreamConfig,
        encodings: tuple[PositionEncoding, ...],
        own_windows: Sequence[int | None],
        undo_size: int | None = None,
    ) -> None:
        self.config = config
        self.encodings = encodings
        limits = [e.position_limit for e in encodings if e.position_limit is not None]
        self._position_limit = min(limits, default=None)
        self._running: Chunk | None = None
        self.positions = new_positions(config)
        if undo_size is None:
            undo_size = tokens_taken_back(config)
        geometries = layer_geometries(config, own_windows, undo_size)
        pairs = zip(geometries, encodings, strict=True)
        kind = QuantizedRingLayer if config.quantize_cache == "int8" else RingLayer
        self.rings = [kind(geometry, encoding) for geometry, encoding in pairs]
        self._own_windows = list(own_windows)
        self._remembered = self._smallest_window + undo_size

    @property
    def cache_size(self) -> int:
        """Entries held per layer and stream: n + m."""
        return self.config.cache_size

    @property
    def num_seen_tokens(self) -> int:
        """Tokens that the longest stream of the batch has seen."""
        return max(self.positions.seen)

    @property
    def num_seen_tokens_per_stream(self) -> Tensor:
        """Tokens that each stream has seen, int64, [batch]."""
        return torch.tensor(self.positions.per_stream(self.num_streams or 1))

    @property
    def first_visible_position(self) -> int:
        """Stream position at which the window of the longest stream begins."""
        seen = self.positions.per_stream(self.num_streams or 1)
        row = seen.index(max(seen))
        return self.positions.first_visible(row, seen[row] - 1, self.config.window_size)

    @property
    def num_cached_tokens(self) -> int:
        """Tokens that the last query of the longest stream saw, itself included."""
        first = self.first_visible_position
        return self.num_seen_tokens - first + bisect_left(self.sink_positions, first)

    @property
    def nbytes(self) -> int:
        """Bytes of all keys and values: 2 x layers x heads x head_dim x (n + m) x element size."""
        return sum(layer.nbytes for layer in self.rings)

    @property
    def rewind_nbytes(self) -> int:
        """Bytes of the rewind buffers, in addition to `nbytes`."""
        return sum(layer.rewind_nbytes for layer in self.rings)

    @property
    def num_streams(self) -> int | None:
        """Streams in the batch; None before the first pass."""
        return self.rings[0].k_cache.shape[0] if self.is_initialized else None

    @property
    def is_initialized(self) -> bool:
        """Return whether a pass has been made since the start or the last reset."""
        return self.rings[0].is_initialized

    @cached_property
    def sink_positions(self) -> tuple[int, ...]:
        """Stream positions of the sinks, ascending."""
        return self.config.sink_positions or tuple(range(self.config.num_sink_tokens))

    @cached_property
    def _smallest_window(self) -> int:
        return min(layer.geometry.window_size for layer in self.rings)

    # A pass over a chunk of tokens.

    def begin(
        self, batch_size: int, num_tokens: int, valid: Tensor | None, device: torch.device
    ) -> ForwardPlan:
        """Plan a pass of `num_tokens` columns; `valid` marks those that are not padding.

        Raises:
            InputError: the batch has another size than before.
        """
        if self.is_initialized and batch_size != self.num_streams:
            raise InputError(
                f"input_ids has {batch_size} rows: this cache holds {self.num_streams} streams"
            )
        chunk = self._rebased(self.positions.chunk(batch_size, num_tokens, valid, device))
        plans: dict[RingGeometry, tuple[WindowPlan, ChunkCopies]] = {}
        for layer in self.rings:
            if layer.geometry not in plans:
                plans[layer.geometry] = self._plan_geometry(chunk, layer.geometry)
            layer.copies = plans[layer.geometry][1]
        self._running = chunk
        windows = tuple(plans[layer.geometry][0] for layer in self.rings)
        return ForwardPlan(chunk, windows, self.encodings)

    def end(self, succeeded: bool) -> None:
        """Write the tokens of the running pass, or forget them."""
        assert self._running is not None
        chunk, self._running = self._running, None
        for layer in self.rings:
            layer.commit() if succeeded else layer.rollback()
        if succeeded:
            self.positions.advance(chunk, self._remembered)

    def _plan_geometry(
        self, chunk: Chunk, geometry: RingGeometry
    ) -> tuple[WindowPlan, ChunkCopies]:
        sinks = self.sink_positions if geometry.num_sink_tokens else ()
        positions = torch.tensor(sinks, dtype=torch.int64, device=chunk.positions.device)
        plan = WindowPlan(chunk, positions, geometry.window_size)
        return plan, ChunkCopies(plan, geometry.undo_size)

    def _rebased(self, chunk: Chunk) -> Chunk:
        """Count from a new origin where an encoding has a limit that this pass would cross."""
        limit = self._position_limit
        if limit is None or int(chunk.model_positions.max()) < limit:
            return chunk
        amount = -(chunk.start - chunk.origin - self.config.cache_size).clamp(min=0)
        if self.num_streams is not None:
            for layer in self.rings:
                layer.shift_stored_keys(amount.expand(self.num_streams))
        self.positions.origin = chunk.origin - amount
        return replace(chunk, origin=self.positions.origin)

    # A decode step writes the rings by itself.

    @cached_property
    def geometry_of(self) -> tuple[int, ...]:
        """Number of each layer's geometry, counted from 0 in the order of layers."""
        kinds = list(dict.fromkeys(self._own_windows))
        return tuple(kinds.index(window) for window in self._own_windows)

    def step_layouts(self, row: int, position: int) -> list[StepLayout]:
        """Return what the token at a stream position sees, per geometry.

        Args:
            row: stream of the batch.
            position: stream position of the token, past the last sink.
        """
        return [self._step_layout(geometry, row, position) for geometry in self._geometries]

    @cached_property
    def _geometries(self) -> list[RingGeometry]:
        firsts = {number: i for i, number in reversed(list(enumerate(self.geometry_of)))}
        return [self.rings[firsts[number]].geometry for number in range(len(firsts))]

    def _step_layout(self, geometry: RingGeometry, row: int, position: int) -> StepLayout:
        n, m = geometry.num_sink_tokens, geometry.window_size
        first = self.positions.first_visible(row, position, m)
        outside = bisect_left(self.sink_positions, first) if n else 0
        length = position - first + 1
        # To the query's cache position, its place among the tokens that it sees.
        shift = outside + length - 1 - position if outside else 0
        return StepLayout(n, m, outside, length, shift)

    @property
    def ring_buffers(self) -> list[RingBuffers]:
        """Each layer's tensors."""
        return [layer.ring_buffers for layer in self.rings]

    @property
    def has_all_sinks(self) -> bool:
        """Return whether every stream has seen its sinks, so that only window tokens follow."""
        last = max(self.sink_positions, default=-1)
        return self.is_initialized and min(self.positions.seen) > last

    def count_step(self) -> None:
        """Count the token that a decode step has written for every stream."""
        self.positions.advance_one(self._remembered)

    # Between passes.

    def begin_turn(self) -> None:
        """Begin a turn with the next token of every stream.

        Under `StreamConfig(eviction="turn")` the window may begin there; else without effect.
        """
        self.positions.begin_turn()

    def rewind(self, num_tokens: int | Tensor, *, fed_again: int | Tensor = 0) -> None:
        """Take the last tokens off each stream, as if they had never been fed.

        Args:
            num_tokens: how many; an int64 tensor [batch] for a number per stream.
            fed_again: of them, tokens that are fed again at once; their turns stay.

        Raises:
            RewindError: it is negative, more than was fed, or more than can come back.
        """
        seen = self.num_seen_tokens_per_stream
        back, again = (
            torch.as_tensor(number, dtype=torch.int64, device="cpu").expand_as(seen)
            for number in (num_tokens, fed_again)
        )
        self.positions.rewind(back.tolist(), self._smallest_window, again.tolist())
        for layer in self.rings if self.is_initialized else ():
            device = layer.k_cache.device
            layer.rewind(seen.to(device), back.to(device))

    @property
    def max_rewind_now(self) -> list[int]:
        """Tokens that each stream can be rewound by now and go on, one token fed again."""
        return self.positions.max_rewind(self.num_streams or 1, self._smallest_window)

    def check_rewind(self, num_tokens: int) -> None:
        """Refuse a rewind that some stream cannot make and go on from.

        Raises:
            RewindError: `num_tokens` is no whole number >= 0, more than was fed, or more than the
                rewind buffer holds.
        """
        check_integer("num_tokens", num_tokens, 0, error=RewindError)
        fed, most = min(self.positions.seen), min(self.max_rewind_now)
        if num_tokens > fed:
            raise RewindError(f"num_tokens={num_tokens}: only {fed} tokens have been fed")
        if num_tokens > most:
            raise RewindError(
                f"num_tokens={num_tokens}: this stream goes back at most {most} tokens now; "
                f"set max_rewind_tokens={self.config.max_rewind_tokens} higher"
            )

    def export_state(self) -> CacheState:
        """Return views of the buffers in use, and the positions."""
        seen = self.num_seen_tokens
        used = [layer.used_buffers(seen) for layer in self.rings] if self.is_initialized else []
        names = used[0] if used else {}
        buffers = {name: [layer[name] for layer in used] for name in names}
        return CacheState.of(self.config, buffers, self.positions.copy().to_json())

    def import_state(self, state: CacheState) -> None:
        """Copy a state into the buffers, in place where there are any.

        Raises:
            InputError: it is of a cache with other sinks, window or quantisation.
        """
        state.check_fits(self.config)
        names = [name for name in self.rings[0].buffers if name in state.buffers]
        for index, layer in enumerate(self.rings if names else ()):
            layer.load({name: state.buffers[name][index] for name in names})
        self.positions = StreamPositions.from_json(
            state.positions, lambda turns: window_starts(self.config, turns)
        )

    def clear(self) -> None:
        """Forget all tokens; the buffers stay."""
        self.positions = new_positions(self.config)


def new_positions(config: StreamConfig) -> StreamPositions:
    """Return the positions of streams that have seen nothing."""
    starts = window_starts(config)
    return StreamPositions(turns=None if starts is None else [starts])
