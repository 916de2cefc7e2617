"""Recurrent states of all layers of a batch of streams: one transaction a pass, checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from streamingllm.cache.state_history import StateHistory
from streamingllm.cache.state_layer import StateLayer

_States = list[dict[str, Tensor]]


class RecurrentStates:
    """Hold the states of a model's recurrent layers.

    States are written during a pass. A copy made before it is put back if the pass fails, and for
    each stream that gets no token of the pass. So in one pass a stream gets all tokens or none.

    Args:
        layers: that have states.
        interval: tokens between two checkpoints; 0 for none.
        num_remembered: ids that each stream remembers in order to feed them again.
    """

    def __init__(self, layers: Sequence[StateLayer], interval: int, num_remembered: int) -> None:
        self.layers = list(layers)
        self.history = StateHistory(interval, num_remembered)
        self._ids: Tensor | None = None
        self._before: _States | None = None
        self._idle: Tensor | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the states, constant."""
        return sum(layer.nbytes for layer in self.layers)

    @property
    def rewind_nbytes(self) -> int:
        """Bytes of the checkpoints."""
        return sum(layer.rewind_nbytes for layer in self.layers)

    @property
    def has_tokens(self) -> bool:
        """Return whether the states have read a token."""
        return any(layer.has_tokens for layer in self.layers)

    # A pass.

    def note(self, ids: Tensor | None) -> None:
        """Take the ids of the pass that begins next, int64, [batch, seq]; None for vectors."""
        self._ids = ids

    def begin(self, seen: list[int], valid: Tensor | None) -> None:
        """Begin a pass.

        Args:
            seen: tokens that each stream has seen.
            valid: False at padding, bool, [batch, seq]; all or nothing in each row.
        """
        self.history.begin(len(seen))
        self._idle = None
        if valid is not None:
            self._idle = ~valid.any(1)
            assert torch.equal(self._idle, ~valid.all(1)), "a stream gets all tokens or none"
        self._before = None
        if self.has_tokens:
            self._before = [
                {k: x.clone() for k, x in layer.states.items()} for layer in self.layers
            ]
            for row, number in self.history.due(seen):
                self._save(row, number)
                self.history.positions[row][number] = seen[row]

    def _save(self, row: int, number: int) -> None:
        for layer in self.layers:
            target = layer.checkpoint(number)
            for name, state in layer.states.items():
                target[name][row].copy_(state[row])

    def end(self, succeeded: bool) -> None:
        """Finish a pass: keep its states where it gave tokens, and put back all others."""
        before, idle, ids = self._before, self._idle, self._ids
        self._before = self._idle = self._ids = None
        for layer in self.layers:
            layer.detach()
        if not succeeded:
            self._put_back(before, slice(None))
            if before is None:
                self._set_has_tokens(False)
            return
        if idle is not None and bool(idle.any()):
            self._put_back(before, idle)
        active = [True] * len(self.history.positions) if idle is None else (~idle).tolist()
        self.history.extend(ids, active)

    def _put_back(self, before: _States | None, rows: Tensor | slice) -> None:
        for index, layer in enumerate(self.layers):
            for name, state in layer.states.items():
                state[rows] = 0 if before is None else before[index][name][rows]

    def _set_has_tokens(self, value: bool) -> None:
        for layer in self.layers:
            layer.has_tokens = value

    # Between passes.

    def go_back(self, row: int, position: int) -> None:
        """Put a stream's states to those of its checkpoint at a position, or to its start at 0."""
        at = self.history.positions[row]
        for layer in self.layers:
            source = layer.checkpoint(at.index(position)) if position else {}
            for name, state in layer.states.items():
                state[row] = source[name][row] if position else 0

    def restart(self) -> None:
        """Let the next pass begin all streams anew, as after `go_back` of each to 0."""
        self._set_has_tokens(False)

    def select_streams(self, rows: Tensor) -> None:
        """Keep the given streams, int64, [new_batch]."""
        if self.history.positions:
            for layer in self.layers:
                layer.select_streams(rows)
            self.history.select(rows.tolist())

    def clear(self) -> None:
        """Forget all tokens; the tensors stay."""
        self._set_has_tokens(False)
        self.history = StateHistory(self.history.interval, self.history.num_remembered)

    def reset(self) -> None:
        """Forget all tokens and free the tensors."""
        for layer in self.layers:
            layer.reset()
        self.clear()

    def export(self) -> tuple[dict[str, list[Tensor]], dict[str, Any]]:
        """Return the tensors by name, one each, and the history as plain numbers."""
        tensors = {
            f"state{index}_{name}": [tensor]
            for index, layer in enumerate(self.layers)
            for name, tensor in layer.buffers.items()
        }
        return (tensors if self.has_tokens else {}), self.history.to_json()

    @torch.inference_mode(False)
    def load(self, tensors: dict[str, list[Tensor]], facts: dict[str, Any]) -> None:
        """Copy what `export` returned into the states, in place where there are any."""
        for index, layer in enumerate(self.layers):
            prefix = f"state{index}_"
            given = {
                name.removeprefix(prefix): parts[0]
                for name, parts in tensors.items()
                if name.startswith(prefix)
            }
            own = layer.buffers
            for name in own.keys() & given.keys():
                own[name].copy_(given[name])
            layer.buffers = {name: given[name].clone() for name in given.keys() - own.keys()}
            layer.has_tokens = bool(given)
        self.history.load(facts)
