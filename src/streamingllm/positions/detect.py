"""Find out how a model encodes positions by asking the model.

One token is run at position 0 and again at position 7. A lone token attends to itself alone.
In a model whose positions are relative only the rotary part of its cached keys may differ. That
part must differ by a known rotation. A model that fits no rotation is refused, not guessed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedConfig, PreTrainedModel

from streamingllm.errors import UnsupportedModelError, first_line
from streamingllm.positions.base import PositionEncoding
from streamingllm.positions.none import NoEncoding
from streamingllm.positions.rope import Layout, RopeEncoding, rotate
from streamingllm.positions.tables import RotaryTable, TableRecorder, rotary_modules

PROBE_POSITION = 7


@dataclass(frozen=True)
class LayerPositions:
    """Use of a rotary table by one layer; `table` is None where it uses none."""

    table: RotaryTable | None
    layout: Layout = "half"
    key_start: int = 0
    query_from_end: bool = False
    in_values: bool = False
    backwards: bool = False


@dataclass(frozen=True)
class ModelPositions:
    """Position encodings of a model, layer by layer."""

    tables: tuple[RotaryTable, ...]
    layers: tuple[LayerPositions, ...]

    def encodings(self, cache_size: int) -> tuple[PositionEncoding, ...]:
        """Return each layer's encoding for queries that see `cache_size` tokens."""
        distinct = {layer: _encoding(layer, cache_size) for layer in set(self.layers)}
        return tuple(distinct[layer] for layer in self.layers)

    def first_user(self, table: RotaryTable) -> int | None:
        """Return the first layer that turns its keys as `table` does, None if there is none.

        Models may have a rotary module per layer; those of equal frequencies count as one.
        """
        tables = enumerate(layer.table for layer in self.layers)
        return next((i for i, used in tables if used is not None and used.equals(table)), None)


def detect_positions(
    model: PreTrainedModel, decoder: nn.Module, attending: Sequence[int] | None = None
) -> ModelPositions:
    """Return how `model` encodes positions, for each layer that attends.

    Args:
        model: a causal language model.
        decoder: the part of it that takes `position_ids` and a cache.
        attending: layers of a hybrid model that attend, ascending; None for all layers.

    Raises:
        UnsupportedModelError: a layer's keys do not change as a known encoding would.
    """
    first, _ = _probe(model, decoder, 0, attending)
    second, recorder = _probe(model, decoder, PROBE_POSITION, attending)
    tables = recorder.tables(PROBE_POSITION)
    layers = []
    for index, (before, after) in enumerate(zip(first, second, strict=True)):
        found = _match(before, after, tables)
        if found is None:
            raise UnsupportedModelError(
                f"{model.config.model_type} cannot stream: the keys of layer {index} follow no "
                "known rotary or position-free encoding; use a decoder with rotary positions"
            )
        layers.append(found)
    return ModelPositions(tables, tuple(layers))


class _RecordingCache(DynamicCache):
    """Record what each layer hands to the cache."""

    def __init__(self, config: PreTrainedConfig | None = None) -> None:
        super().__init__(config=config)
        self.recorded: dict[int, tuple[Tensor, Tensor]] = {}

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        self.recorded[layer_idx] = (key_states.double(), value_states.double())
        return super().update(key_states, value_states, layer_idx, *args, **kwargs)


_Recorded = list[tuple[Tensor, Tensor]]


def _probe(
    model: PreTrainedModel, decoder: nn.Module, position: int, attending: Sequence[int] | None
) -> tuple[_Recorded, TableRecorder]:
    """Run one token at `position`; return its keys and values and what rotary modules made."""
    recorder = TableRecorder()
    hooks = [
        module.register_forward_hook(recorder.record, with_kwargs=True)
        for module in rotary_modules(decoder)
    ]
    cache = _RecordingCache(None if attending is None else model.config)
    device = model.device
    try:
        with torch.no_grad():
            decoder(
                input_ids=torch.ones((1, 1), dtype=torch.int64, device=device),
                position_ids=torch.full((1, 1), position, dtype=torch.int64, device=device),
                past_key_values=cache,
                use_cache=True,
            )
    except (TypeError, ValueError) as error:
        raise UnsupportedModelError(
            f"{model.config.model_type} cannot stream: its decoder does not run on tokens and "
            f"positions alone ({first_line(error)}); use a decoder that does"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    num_layers = model.config.get_text_config().num_hidden_layers
    layers = list(range(num_layers) if attending is None else attending)
    if sorted(cache.recorded) != layers:
        raise UnsupportedModelError(
            f"{model.config.model_type} cannot stream: only {len(cache.recorded)} of {num_layers} "
            "layers keep keys and values of their own; use a decoder whose layers all do"
        )
    return [cache.recorded[layer] for layer in layers], recorder


def _match(
    before: tuple[Tensor, Tensor], after: tuple[Tensor, Tensor], tables: tuple[RotaryTable, ...]
) -> LayerPositions | None:
    """Return the use of a table that turns `before` into `after`, the closest of all."""
    tolerance = 0.02
    best, best_error = None, tolerance
    for candidate in _candidates(before, tables):
        changed = int(candidate.in_values)
        error = max(
            _relative_error(_turned(before[changed], candidate), after[changed]),
            _relative_error(before[1 - changed], after[1 - changed]),
        )
        if error < best_error:
            best, best_error = candidate, error
    return best


def _candidates(
    tensors: tuple[Tensor, Tensor], tables: tuple[RotaryTable, ...]
) -> Iterator[LayerPositions]:
    yield LayerPositions(None)
    layouts: tuple[Layout, ...] = ("half", "interleaved")
    for table in tables:
        width = 2 * len(table.inv_freq)
        for in_values in (False, True):
            head_dim = tensors[int(in_values)].shape[-1]
            if width > head_dim:
                continue
            starts = (0,) if width == head_dim else (0, head_dim - width)
            for layout, start, backwards in product(layouts, starts, (False, True)):
                from_end = in_values or start > 0
                yield LayerPositions(table, layout, start, from_end, in_values, backwards)


def _turned(x: Tensor, candidate: LayerPositions) -> Tensor:
    if candidate.table is None:
        return x
    distance = -PROBE_POSITION if candidate.backwards else PROBE_POSITION
    angles = candidate.table.inv_freq.double() * distance
    return rotate(x, angles.cos(), angles.sin(), candidate.layout, candidate.key_start)


def _relative_error(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm().clamp(min=1e-30))


def _encoding(layer: LayerPositions, cache_size: int) -> PositionEncoding:
    if layer.table is None:
        return NoEncoding()
    inv_freq, scaling = layer.table.frequencies(cache_size)
    return RopeEncoding(
        inv_freq,
        scaling,
        layout=layer.layout,
        key_start=layer.key_start,
        query_from_end=layer.query_from_end,
        in_values=layer.in_values,
        backwards=layer.backwards,
    )
