"""Find out how a model encodes positions by asking the model.

One token is run at position 0 and again at position 7. A lone token attends to itself alone, so in
a model whose positions are relative nothing but the rotary part of its cached keys may differ, and
that part must differ by a known rotation. Whatever fits no rotation is refused, not guessed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from streamingllm.errors import UnsupportedModelError
from streamingllm.positions.base import PositionEncoding
from streamingllm.positions.none import NoEncoding
from streamingllm.positions.rope import Columns, Layout, RopeEncoding, expand_columns, rotate

PROBE_POSITION = 7
LENGTH_DEPENDENT = ("dynamic", "longrope")


@dataclass(frozen=True)
class RotaryTable:
    """One set of rotary frequencies of a model.

    Args:
        module: the module that computes the tables.
        layer_type: which of the module's sets, where it has one per kind of layer.
        columns: how the module lays out its tables.
        dtype: dtype of the tables, None for that of the hidden states.
    """

    module: nn.Module
    layer_type: str | None
    columns: Columns
    dtype: torch.dtype | None = None

    @property
    def rope_type(self) -> str:
        """The scaling rule's name in transformers, `default` without one."""
        rope_type: Any = getattr(self.module, "rope_type", "default")
        return str(rope_type if self.layer_type is None else rope_type[self.layer_type])

    def equals(self, other: RotaryTable) -> bool:
        """Whether two tables turn by the same angles."""
        mine, its = (_buffer(t.module, t.layer_type) for t in (self, other))
        return self.rope_type == other.rope_type and torch.equal(mine, its)

    def frequencies(self, cache_size: int) -> tuple[Tensor, float]:
        """Return radians per position (float64, [pairs]) and the attention scaling.

        Rules that depend on a text's length are pinned to the length a query can see.
        """
        inv_freq = _buffer(self.module, self.layer_type)
        if self.rope_type in LENGTH_DEPENDENT:
            extra = {} if self.layer_type is None else {"layer_type": self.layer_type}
            config: Any = self.module.config
            rule = ROPE_INIT_FUNCTIONS[self.rope_type]
            inv_freq, scaling = rule(config, inv_freq.device, seq_len=cache_size, **extra)
            return inv_freq.double(), float(scaling)
        prefix = "" if self.layer_type is None else f"{self.layer_type}_"
        scaling = getattr(self.module, f"{prefix}attention_scaling", 1.0)
        return inv_freq.double(), float(scaling)


@dataclass(frozen=True)
class LayerPositions:
    """How one layer uses a rotary table; `table` is None where it uses none."""

    table: RotaryTable | None
    layout: Layout = "half"
    key_start: int = 0
    query_from_end: bool = False
    in_values: bool = False


@dataclass(frozen=True)
class ModelPositions:
    """How a model encodes positions, layer by layer."""

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


def detect_positions(model: PreTrainedModel, decoder: nn.Module) -> ModelPositions:
    """Return how `model` encodes positions.

    Args:
        model: a causal language model.
        decoder: the part of it that takes `position_ids` and a cache.

    Raises:
        UnsupportedModelError: a layer's keys do not change as a known encoding would.
    """
    first, _ = _probe(model, decoder, 0)
    second, outputs = _probe(model, decoder, PROBE_POSITION)
    tables = tuple(_find_tables(outputs))
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
    """Keeps what each layer hands to the cache."""

    def __init__(self) -> None:
        super().__init__()
        self.recorded: dict[int, tuple[Tensor, Tensor]] = {}

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        self.recorded[layer_idx] = (key_states.double(), value_states.double())
        return super().update(key_states, value_states, layer_idx, *args, **kwargs)


_Recorded = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class _TableOutput:
    """What a rotary module returned.

    Args:
        cos: cosines, [1, 1, columns].
        dtype: dtype of the tables, None for that of the hidden states.
        is_complex: whether cosines and sines are one tensor of complex numbers.
    """

    cos: Tensor
    dtype: torch.dtype | None
    is_complex: bool


_TableOutputs = dict[tuple[nn.Module, str | None], _TableOutput]


def _probe(
    model: PreTrainedModel, decoder: nn.Module, position: int
) -> tuple[_Recorded, _TableOutputs]:
    """Run one token at `position`; return its keys and values and the rotary modules' cosines."""
    outputs: _TableOutputs = {}

    def record(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        table = output[0] if isinstance(output, tuple) else output
        if isinstance(table, Tensor):
            follows = table.dtype == hidden_states_of(args, kwargs).dtype
            dtype, is_complex = None if follows else table.dtype, table.is_complex()
            cos = table.real if is_complex else table
            found = _TableOutput(cos.double(), dtype, is_complex)
            outputs[module, layer_type_of(args, kwargs)] = found

    hooks = [m.register_forward_hook(record, with_kwargs=True) for m in rotary_modules(decoder)]
    cache = _RecordingCache()
    device = model.device
    try:
        with torch.no_grad():
            decoder(
                input_ids=torch.ones((1, 1), dtype=torch.int64, device=device),
                position_ids=torch.full((1, 1), position, dtype=torch.int64, device=device),
                past_key_values=cache,
                use_cache=True,
            )
    finally:
        for hook in hooks:
            hook.remove()
    num_layers = model.config.get_text_config().num_hidden_layers
    if sorted(cache.recorded) != list(range(num_layers)):
        raise UnsupportedModelError(
            f"{model.config.model_type} cannot stream: only {len(cache.recorded)} of {num_layers} "
            "layers keep keys and values of their own; use a decoder whose layers all do"
        )
    return [cache.recorded[i] for i in range(num_layers)], outputs


def rotary_modules(decoder: nn.Module) -> list[nn.Module]:
    """Return the modules that hold rotary frequencies."""
    return [m for m in decoder.modules() if any(n.endswith("inv_freq") for n, _ in _own_buffers(m))]


def layer_type_of(args: Any, kwargs: Any) -> str | None:
    """Return the kind of layer that a rotary module was called for, if it was told one."""
    value = kwargs.get("layer_type", args[2] if len(args) > 2 else None)
    return value if isinstance(value, str) else None


def hidden_states_of(args: Any, kwargs: Any) -> Tensor:
    """Return the hidden states that a rotary module was called with."""
    given: Tensor = args[0] if args else next(iter(kwargs.values()))
    return given


def _own_buffers(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    return module.named_buffers(recurse=False)


def _buffer(module: nn.Module, layer_type: str | None) -> Tensor:
    name = "inv_freq" if layer_type is None else f"{layer_type}_inv_freq"
    return getattr(module, name)  # type: ignore[no-any-return]


def _find_tables(outputs: _TableOutputs) -> Iterator[RotaryTable]:
    for (module, layer_type), output in outputs.items():
        cos = output.cos
        angles = _buffer(module, layer_type).double() * PROBE_POSITION
        prefix = "" if layer_type is None else f"{layer_type}_"
        scaling = getattr(module, f"{prefix}attention_scaling", 1.0)
        options: tuple[Columns, ...] = ("concatenated", "repeated", "single")
        for columns in ("complex",) if output.is_complex else options:
            expected = expand_columns(angles.cos() * scaling, columns)
            if expected.shape[-1] == cos.shape[-1] and torch.allclose(
                expected.expand_as(cos), cos, atol=0.01
            ):
                yield RotaryTable(module, layer_type, columns, output.dtype)
                break
        else:
            raise UnsupportedModelError(
                f"{type(module).__name__} computes rotary tables in an unknown way; it must return "
                "cosines and sines of inv_freq x position"
            )


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
        width = 2 * len(_buffer(table.module, table.layer_type))
        for in_values in (False, True):
            head_dim = tensors[int(in_values)].shape[-1]
            if width > head_dim:
                continue
            for layout in layouts:
                yield LayerPositions(table, layout, 0, in_values, in_values)
                if width < head_dim:
                    yield LayerPositions(table, layout, head_dim - width, True, in_values)


def _turned(x: Tensor, candidate: LayerPositions) -> Tensor:
    if candidate.table is None:
        return x
    inv_freq = _buffer(candidate.table.module, candidate.table.layer_type).double()
    angles = inv_freq * PROBE_POSITION
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
    )
