"""One layer's keys and values: the sinks, a ring of recent tokens, and what the ring overwrote."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers.cache_utils import CacheLayerMixin

from streamingllm.attention.plan import WindowPlan
from streamingllm.attention.step_plan import RingBuffers
from streamingllm.cache.geometry import RingGeometry
from streamingllm.cache.slot_copies import ChunkCopies, rewind_copies
from streamingllm.errors import InputError
from streamingllm.positions.base import PositionEncoding


class Pending(NamedTuple):
    """Tokens of the running pass: as the model gave them, and as the ring stores them."""

    exact: Tensor
    rows: Tensor


class Side(NamedTuple):
    """The keys, or the values, of a layer: views that are written in place.

    `sinks` is [batch, num_kv_heads, n, head_dim]; `ring` and `undo` hold rows as they are stored.
    """

    sinks: Tensor
    ring: Tensor
    undo: Tensor


class RingLayer(CacheLayerMixin):
    """Hold n + m keys and values per stream, in place.

    `k_cache` and `v_cache` are [batch, num_kv_heads, n + m, head_dim]; `k_undo` and `v_undo` hold
    the entries that the ring overwrote last. A chunk is read during the forward pass and written by
    `commit` after it, so a pass that fails leaves the stream as it was. A single token is written
    at once, because attention then reads the buffer itself. `rollback` takes it back.
    """

    is_compileable = False
    is_croppable = True
    is_sliding = True

    k_cache: Tensor
    v_cache: Tensor
    k_undo: Tensor
    v_undo: Tensor
    _names: tuple[str, ...] = ("k_cache", "v_cache", "k_undo", "v_undo")

    def __init__(self, geometry: RingGeometry, encoding: PositionEncoding) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.geometry = geometry
        self.encoding = encoding
        self.copies: ChunkCopies | None = None
        self._pending: tuple[Pending, Pending] | None = None
        for name in self._names:
            setattr(self, name, torch.empty(0))

    @property
    def buffers(self) -> dict[str, Tensor]:
        """The tensors that make up the layer's state."""
        return {name: getattr(self, name) for name in self._names}

    @buffers.setter
    def buffers(self, tensors: dict[str, Tensor]) -> None:
        for name, tensor in tensors.items():
            setattr(self, name, tensor)
        self.is_initialized = True

    def used_buffers(self, num_seen_tokens: int) -> dict[str, Tensor]:
        """Return the parts of the buffers that a stream of that age uses, as views.

        Args:
            num_seen_tokens: of the longest stream of the batch.
        """
        counts = self._used_entries(num_seen_tokens)
        return {name: getattr(self, name)[:, :, : counts[name[2:]]] for name in self._names}

    def _used_entries(self, num_seen_tokens: int) -> dict[str, int]:
        n, m, u = self.geometry.num_sink_tokens, self.geometry.window_size, self.geometry.undo_size
        evicted = max(0, num_seen_tokens - m)
        return {"cache": n + min(num_seen_tokens, m), "undo": min(u, evicted)}

    @torch.inference_mode(False)
    def load(self, tensors: dict[str, Tensor]) -> None:
        """Copy what `used_buffers` returned into the buffers, in place if there are any."""
        if not self.is_initialized:
            self.lazy_initialization(tensors["k_cache"], tensors["v_cache"])
        for name, tensor in tensors.items():
            getattr(self, name)[:, :, : tensor.shape[2]].copy_(tensor)

    @property
    def ring_buffers(self) -> RingBuffers:
        """The tensors as a decode step takes them."""
        return RingBuffers(self.k_cache, self.v_cache, self.k_undo, self.v_undo, None, None)

    @property
    def _sides(self) -> tuple[Side, Side]:
        n, end = self.geometry.num_sink_tokens, self.geometry.num_entries
        return (
            Side(self.k_cache[:, :, :n], self.k_cache[:, :, n:end], self.k_undo),
            Side(self.v_cache[:, :, :n], self.v_cache[:, :, n:end], self.v_undo),
        )

    def _encode(self, new: Tensor) -> Tensor:
        """Return fresh tokens as the ring stores them."""
        return new

    def _decode(self, rows: Tensor, like: Tensor) -> Tensor:
        """Return what the ring stores, in the dtype of `like`."""
        return rows

    @property
    def nbytes(self) -> int:
        """Bytes of the n + m keys and values."""
        return self.k_cache.nbytes + self.v_cache.nbytes

    @property
    def rewind_nbytes(self) -> int:
        """Bytes of the overwritten entries that `rewind` needs."""
        return self.k_undo.nbytes + self.v_undo.nbytes

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate the buffers for keys and values [batch, num_kv_heads, seq, head_dim]."""

        @torch.inference_mode(False)  # so that they can be written in and out of inference mode
        def allocate(like: Tensor, entries: int) -> Tensor:
            return like.new_zeros((*like.shape[:2], entries, like.shape[-1]))

        self.k_cache = allocate(key_states, self.geometry.num_entries)
        self.v_cache = allocate(value_states, self.geometry.num_entries)
        self.k_undo = allocate(key_states, self.geometry.undo_size)
        self.v_undo = allocate(value_states, self.geometry.undo_size)
        self.is_initialized = True

    @torch.inference_mode(False)
    def widen(self, other: RingGeometry) -> None:
        """Make room for streams of another geometry too; what the buffers hold is lost."""
        entries = self._entries_for(self.geometry, other)
        self.buffers = {
            name: buffer.new_zeros((*buffer.shape[:2], entries[name[2:]], buffer.shape[3]))
            for name, buffer in self.buffers.items()
        }

    def _entries_for(self, *geometries: RingGeometry) -> dict[str, int]:
        """Return the entries of each kind of buffer that hold any of some geometries."""
        return {
            "cache": max(geometry.num_entries for geometry in geometries),
            "undo": max(geometry.undo_size for geometry in geometries),
        }

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Take the keys and values of this pass and return all that its queries may see.

        Args:
            key_states: [batch, num_kv_heads, seq, head_dim].
            value_states: the same shape; another head_dim in some families.
            *args: not used; transformers passes none.
            **kwargs: not used; some models pass their rotary tables.

        Returns:
            keys and values, [batch, num_kv_heads, sinks + old + seq, head_dim].

        Raises:
            InputError: the pass did not go through a model that the cache was made for.
        """
        if self.copies is None:
            raise InputError(
                "SinkCache was used outside a forward pass of the model it was made for, or after "
                "disable(): make a new SinkCache(model)"
            )
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        fresh = tuple(Pending(x, self._encode(x)) for x in (key_states, value_states))
        k, v = (Pending(new.exact.detach(), new.rows.detach()) for new in fresh)
        self._pending = (k, v)
        if self.copies.plan.in_place:
            self._write()
        keys, values = (  # of this pass with its gradients; the rings keep none
            self._read(side, new, is_key)
            for side, new, is_key in zip(self._sides, fresh, (True, False), strict=True)
        )
        return keys, values

    def commit(self) -> None:
        """Write the tokens of a pass that has succeeded."""
        if self._pending is not None and self.copies is not None and not self.copies.plan.in_place:
            self._write()
        self._end()

    def rollback(self) -> None:
        """Forget the tokens of a pass that has failed."""
        if self._pending is not None and self.copies is not None and self.copies.plan.in_place:
            for side in self._sides:
                self.copies.undo_single.apply(side.undo, side.ring)
        self._end()

    def _end(self) -> None:
        self._pending = None
        self.copies = None

    def _read(self, side: Side, new: Pending, is_key: bool) -> Tensor:
        """Return [sinks | earlier tokens of the window | this pass], or the slots as they lie."""
        assert self.copies is not None
        if self.copies.plan.in_place:
            return self._slots(self.copies.plan, side, new.exact, is_key)
        stored = (*self.copies.read_ring(side.ring), new.rows)
        parts = [self._decode(rows, new.exact) for rows in stored]
        if self.copies.plan.num_sinks:
            parts.insert(0, self._sinks_with(side.sinks, new.exact, is_key))
        return torch.cat(parts, dim=2)

    def _slots(self, plan: WindowPlan, side: Side, like: Tensor, is_key: bool) -> Tensor:
        """Return the buffer itself as far as it is filled."""
        n = self.geometry.num_sink_tokens
        first = 0 if plan.num_sinks else n
        cache = self.k_cache if is_key else self.v_cache
        return cache[:, :, first : n + plan.window_positions.shape[1]]

    def _sinks_with(self, sinks: Tensor, new: Tensor, is_key: bool) -> Tensor:
        """The sinks, including those that only arrive in this pass."""
        assert self.copies is not None
        if not self.copies.new_sinks:
            return sinks
        sinks = sinks.clone()
        self._copy_sinks(sinks, new, is_key)
        return sinks

    def _copy_sinks(self, sinks: Tensor, new: Tensor, is_key: bool) -> None:
        assert self.copies is not None
        holds_position = is_key != getattr(self.encoding, "in_values", False)
        self.copies.copy_sinks(sinks, new, self.encoding if holds_position else None)

    def _write(self) -> None:
        assert self.copies is not None
        assert self._pending is not None
        for is_key, side, new in zip((True, False), self._sides, self._pending, strict=True):
            self.copies.ring_to_undo.apply(side.ring, side.undo)
            self.copies.new_to_undo.apply(new.rows, side.undo)
            self.copies.new_to_ring.apply(new.rows, side.ring)
            if self.copies.new_sinks:
                self._copy_sinks(side.sinks, new.exact, is_key)

    def rewind(self, seen: Tensor, back: Tensor) -> None:
        """Take `back` tokens off streams that have seen `seen`, both int64, [batch]."""
        geometry = self.geometry
        moves = rewind_copies(seen, back, geometry.window_size, geometry.undo_size)
        for side in self._sides:
            moves.apply(side.undo, side.ring)

    def shift_stored_keys(self, amount: Tensor) -> None:
        """Move every key of the window by `amount` positions, int64, [batch]."""
        side = self._sides[0]
        for rows in (side.ring, side.undo):
            keys = self._decode(rows, side.sinks)
            shift = self.encoding.shift(amount[:, None].expand(-1, keys.shape[2]), like=keys)
            if shift is not None:
                rows.copy_(self._encode(shift.keys(keys)))

    @torch.inference_mode(False)
    def select_streams(self, rows: Tensor) -> None:
        """Keep the given rows of the batch, in that order."""
        if self.is_initialized:
            self.buffers = {
                name: b.index_select(0, rows.to(b.device)) for name, b in self.buffers.items()
            }

    def reset(self) -> None:
        """Free the buffers; the next pass allocates them again."""
        empty = torch.empty(0)
        self.buffers = dict.fromkeys(self.buffers, empty)
        self.is_initialized = False
        self._end()

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Sizes for mask functions that are not asked, since the plan is the mask."""
        return self.geometry.num_entries + query_length, 0

    def get_seq_length(self) -> int:
        """Entries that can be held; the cache, not its layers, counts tokens."""
        return self.geometry.num_entries if self.is_initialized else 0

    def get_max_length(self) -> int:
        """Entries held at most."""
        return self.geometry.num_entries
