"""Rings and recurrent states of a batch of streams, planned, counted and taken back together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from streamingllm.attention.forward_plan import ForwardPlan, LayerTurn
from streamingllm.cache.recurrent_states import RecurrentStates
from streamingllm.cache.ring import RingLayer
from streamingllm.cache.ring_cache import RingCache
from streamingllm.cache.state import CacheState
from streamingllm.cache.state_layer import StateLayer
from streamingllm.errors import RewindError

_HISTORY = "recurrent"


class StatefulRingCache(RingCache):
    """Keep sinks and window of layers that attend, and the states of those that are recurrent.

    Attributes:
        states: of the recurrent layers; None for a model without any.
    """

    states: RecurrentStates | None = None
    turn: LayerTurn | None = None

    @property
    def stores(self) -> list[RingLayer | StateLayer]:
        """Each part that has buffers: the rings, then the layers with states."""
        return [*self.rings, *(() if self.states is None else self.states.layers)]

    @property
    def nbytes(self) -> int:
        """Bytes of all keys, values and recurrent states."""
        return super().nbytes + (0 if self.states is None else self.states.nbytes)

    @property
    def rewind_nbytes(self) -> int:
        """Bytes of the rewind buffers and of the states' checkpoints, in addition to `nbytes`."""
        return super().rewind_nbytes + (0 if self.states is None else self.states.rewind_nbytes)

    def begin(
        self, batch_size: int, num_tokens: int, valid: Tensor | None, device: torch.device
    ) -> ForwardPlan:
        """Plan a pass; see `RingCache.begin`. With states a row is all padding or has none."""
        plan = super().begin(batch_size, num_tokens, valid, device)
        if self.states is not None:
            self.states.begin(self.positions.per_stream(batch_size), valid)
            plan = replace(plan, turn=self.turn)
        return plan

    def end(self, succeeded: bool) -> None:
        """Keep what the running pass has written, or forget it."""
        super().end(succeeded)
        if self.states is not None:
            self.states.end(succeeded)

    def reset(self) -> None:
        """Forget everything and free the buffers."""
        for layer in self.rings:
            layer.reset()
        if self.states is not None:
            self.states.reset()
        self.clear()

    def clear(self) -> None:
        """Forget all tokens; the buffers stay."""
        super().clear()
        if self.states is not None:
            self.states.clear()

    def select_streams(self, indices: Tensor) -> None:
        """Keep the given streams, int64, [new_batch]."""
        for layer in self.rings:
            layer.select_streams(indices)
        if self.states is not None:
            self.states.select_streams(indices)
        self.positions.select(indices)

    def export_state(self) -> CacheState:
        """Return views of the buffers in use, and the positions."""
        state = super().export_state()
        if self.states is None:
            return state
        tensors, history = self.states.export()
        positions = state.positions | {_HISTORY: history}
        return replace(state, buffers=state.buffers | tensors, positions=positions)

    def import_state(self, state: CacheState) -> None:
        """Copy a state into the buffers, in place where there are any.

        Raises:
            InputError: it is of a cache with other sinks, window or quantisation.
        """
        super().import_state(state)
        if self.states is not None:
            self.states.load(state.buffers, state.positions[_HISTORY])

    @contextmanager
    def all_or_nothing(self) -> Iterator[None]:
        """Put everything back as it was if what runs inside fails."""
        was_initialized = self.is_initialized
        before = self.export_state().cloned()
        try:
            yield
        except BaseException:
            if not was_initialized:
                self.reset()
            self.import_state(before)
            raise

    # Rewind: states go back to a checkpoint, and what follows it is fed again.

    def rewind(self, num_tokens: int | Tensor, *, fed_again: int | Tensor = 0) -> None:
        """Take the last tokens off each stream, as if they had never been fed.

        See `RingCache.rewind`. With recurrent states a stream goes back to a checkpoint before
        those tokens, and the tokens in between are fed again.
        """
        if self.states is None:
            super().rewind(num_tokens, fed_again=fed_again)
            return
        seen = self.num_seen_tokens_per_stream
        back, again = (
            torch.as_tensor(number, dtype=torch.int64, device="cpu").expand_as(seen)
            for number in (num_tokens, fed_again)
        )
        if not bool(back.any()):
            return
        bases = self._bases(self.states, seen.tolist(), back.tolist())
        targets = seen - back
        num_columns = self.positions.num_columns - int(back.max())
        with self.all_or_nothing():
            super().rewind(seen - bases, fed_again=targets - bases + again)
            ids = self._take_back(self.states, seen.tolist(), bases.tolist(), targets.tolist())
            if any(ids):
                self._feed_again(ids)
        self.positions.num_columns = num_columns

    def _bases(self, states: RecurrentStates, seen: list[int], back: list[int]) -> Tensor:
        """Return the stream positions from which streams are fed again, int64, [batch]."""
        most = self._reach(len(seen))
        if min(back) < 0 or any(b > t for b, t in zip(back, seen, strict=True)):
            return torch.tensor(seen) - torch.tensor(back)  # refused by the positions
        if any(b > r for b, r in zip(back, most, strict=True)):
            raise RewindError(
                f"num_tokens={max(back)}: this stream's recurrent states go back at most "
                f"{min(most)} tokens now; set max_rewind_tokens higher"
            )
        restart = self._restarts(len(seen))
        bases = [
            t if b == 0 else states.history.base(row, t, t - b, from_start=restart[row])
            for row, (t, b) in enumerate(zip(seen, back, strict=True))
        ]
        assert all(base is not None for base in bases)
        return torch.tensor(bases)

    def _take_back(
        self, states: RecurrentStates, seen: list[int], bases: list[int], targets: list[int]
    ) -> list[list[int]]:
        """Put states to where they are fed from; return the ids to feed for each stream."""
        ids = []
        for row, (t, base, target) in enumerate(zip(seen, bases, targets, strict=True)):
            if base != t:
                states.go_back(row, base)
            ids.append(states.history.take_back(row, t, base, target) if base != t else [])
        if not any(bases):
            states.restart()
        return ids

    def _feed_again(self, ids: list[list[int]]) -> None:
        """Feed ids, of another number for each stream."""
        raise NotImplementedError

    def _restarts(self, num_streams: int) -> list[bool]:
        """Return which streams can be fed again from their start."""
        fed = self.positions.per_stream(num_streams)
        reach = self.positions.reach(num_streams, self._smallest_window)
        return [r >= t for r, t in zip(reach, fed, strict=True)]

    def _reach(self, num_streams: int) -> list[int]:
        """Return how many tokens can be taken off each stream now."""
        reach = self.positions.reach(num_streams, self._smallest_window)
        if self.states is None or not self.states.history.positions:
            return reach
        history, seen = self.states.history, self.positions.per_stream(num_streams)
        restart = self._restarts(num_streams)
        return [
            history.reach(row, seen[row], most, from_start=restart[row])
            for row, most in enumerate(reach)
        ]

    @property
    def max_rewind_now(self) -> list[int]:
        """Tokens that each stream can be rewound by now and go on, one token fed again."""
        num_streams = self.num_streams or 1
        seen = self.positions.per_stream(num_streams)
        pairs = zip(self._reach(num_streams), seen, strict=True)
        return [reach if reach >= t else max(0, reach - 1) for reach, t in pairs]
