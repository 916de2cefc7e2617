"""Cache of the self-check, which records the keys and values of each layer."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from streamingllm.attention import reference
from streamingllm.attention.forward_plan import ForwardPlan
from streamingllm.integration.sink_cache import SinkCache

_TOLERANCE_FULL, _TOLERANCE_HALF = 1e-3, 0.05
# Large keys make large scores, whose rounding in half precision changes the weights: in Qwen 2.5's
# first layer by a third. Two paths may each be off by what the plain reference loses.
_PATHS = 2


@dataclass(frozen=True)
class AttentionFacts:
    """Facts of a model's attention layers, as the self-check saw them.

    Args:
        head_dims: widths of the keys and values that attention is given, each pair once.
        changed_layers: layers that do not attend exactly once a pass to exactly what the cache
            returned for them, or for the layer whose keys they read.
        first_scaled_position: first position id that changes more than rotary tables; None if
            there is none.
    """

    head_dims: frozenset[tuple[int, int]]
    changed_layers: tuple[int, ...]
    first_scaled_position: int | None = None


class CheckedCache(SinkCache):
    """Record the arguments of each attention of a model, and compare its output if asked to.

    Args:
        model: a model that is attached.
        num_sink_tokens, window_size: see `StreamConfig`.
        compares: whether each output is held against the plain reference.
    """

    def __init__(
        self, model: PreTrainedModel, num_sink_tokens: int, window_size: int, *, compares: bool
    ) -> None:
        super().__init__(model, num_sink_tokens, window_size, max_rewind_tokens=0)
        self.compares = compares
        self.is_right = True
        self._head_dims: set[tuple[int, int]] = set()
        self._changed: set[int] = set()
        self._returned: dict[int, tuple[Tensor, Tensor]] = {}
        self._num_calls: Counter[int] = Counter()

    @property
    def facts(self) -> AttentionFacts:
        """Return the facts seen until now."""
        return AttentionFacts(frozenset(self._head_dims), tuple(sorted(self._changed)))

    def begin(self, *args: Any, **kwargs: Any) -> ForwardPlan:
        """Plan a pass whose attention is recorded."""
        plan = super().begin(*args, **kwargs)
        copied = {each.name: getattr(plan, each.name) for each in fields(plan)}
        return _CheckedPlan(**copied, cache=self)

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Return the columns that a layer attends to."""
        returned = super().update(key_states, value_states, layer_idx, *args, **kwargs)
        layer = self.ring_number(layer_idx)
        if layer in self._returned:
            self._changed.add(layer)
        self._returned[layer] = returned
        return returned

    def end(self, succeeded: bool) -> None:
        """Finish a pass."""
        super().end(succeeded)
        calls = {layer: self._num_calls[layer] for layer in {*self._returned, *self._num_calls}}
        self._changed.update(layer for layer, count in calls.items() if count != 1)
        self._returned.clear()
        self._num_calls.clear()

    def __enter__(self) -> CheckedCache:
        return self

    def record(self, layer: int, k: Tensor, v: Tensor) -> None:
        """Record one attention of a layer: the keys and values that it is given."""
        self._num_calls[layer] += 1
        self._head_dims.add((k.shape[-1], v.shape[-1]))
        num_own, readers = len(self.rings), self.attachment.readers
        source = layer if layer < num_own else readers[layer - num_own]
        returned = self._returned.get(source)
        if returned is None or not (_is_same(k, returned[0]) and _is_same(v, returned[1])):
            self._changed.add(layer)


@dataclass(frozen=True)
class _CheckedPlan(ForwardPlan):
    """A plan that shows each attention to a cache."""

    cache: CheckedCache | None = field(default=None, compare=False)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, **rule: Any) -> Tensor:
        """Attend in one layer; see `reference.attend`."""
        assert self.cache is not None
        self.cache.record(layer, k, v)
        out = super().attend(layer, q, k, v, **rule)
        if self.cache.compares:
            window, encoding = self.windows[layer], self.encodings[layer]
            wide_q, wide_k, wide_v = (x.to(reference.score_dtype(x)) for x in (q, k, v))
            expected = reference.attend(wide_q, wide_k, wide_v, window, encoding, **rule)
            rounded = None
            if q.dtype.itemsize < torch.float32.itemsize:
                rounded = reference.attend(q, k, v, window, encoding, **rule)
            self.cache.is_right &= agree(out, expected, rounded, self.chunk.valid)
        return out


def agree(out: Tensor, expected: Tensor, rounded: Tensor | None, valid: Tensor | None) -> bool:
    """Return whether attention differs from the plain reference by rounding only.

    Args:
        out: of a fast path, [batch, num_heads, seq, head_dim].
        expected: of the reference in float32 or float64.
        rounded: of the reference in the dtype of `out`, if that has half precision.
        valid: tokens that are no padding, bool, [batch, seq]; None for all.
    """
    apart = _relative(out, expected)
    if valid is not None:
        apart = apart.masked_fill(~valid[:, None], 0.0)
    if rounded is None:
        return bool((apart <= _TOLERANCE_FULL).all())
    loss = _relative(rounded, expected)
    if valid is not None:
        loss = loss.masked_fill(~valid[:, None], 0.0)
    of_head = loss.amax(dim=(0, 2))[:, None]
    return bool((apart <= _TOLERANCE_HALF + _PATHS * of_head).all())


def _relative(out: Tensor, expected: Tensor) -> Tensor:
    """Return the norm of each difference over that of the expected output."""
    apart = (out.to(expected.dtype) - expected).norm(dim=-1)
    relative: Tensor = apart / expected.norm(dim=-1).clamp(min=torch.finfo(expected.dtype).tiny)
    return relative


def _is_same(a: Tensor, b: Tensor) -> bool:
    """Return whether two tensors are one piece of memory, seen in one way."""
    return a.data_ptr() == b.data_ptr() and a.shape == b.shape and a.stride() == b.stride()
