"""The tables of cosines and sines that a model's rotary modules make."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from streamingllm.errors import UnsupportedModelError
from streamingllm.positions.rope import Columns, expand_columns

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

    @property
    def inv_freq(self) -> Tensor:
        """Radians per position as the module holds them now, [pairs]."""
        name = "inv_freq" if self.layer_type is None else f"{self.layer_type}_inv_freq"
        return getattr(self.module, name)  # type: ignore[no-any-return]

    @property
    def attention_scaling(self) -> float:
        """Factor of the module's cosines and sines."""
        prefix = "" if self.layer_type is None else f"{self.layer_type}_"
        return float(getattr(self.module, f"{prefix}attention_scaling", 1.0))

    def equals(self, other: RotaryTable) -> bool:
        """Return whether two tables turn by the same angles."""
        return self.rope_type == other.rope_type and torch.equal(self.inv_freq, other.inv_freq)

    def frequencies(self, cache_size: int) -> tuple[Tensor, float]:
        """Return radians per position (float64, [pairs]) and the attention scaling.

        Rules that depend on a text's length are pinned to the length a query can see.
        """
        if self.rope_type not in LENGTH_DEPENDENT:
            return self.inv_freq.double(), self.attention_scaling
        extra = {} if self.layer_type is None else {"layer_type": self.layer_type}
        config: Any = self.module.config
        rule = ROPE_INIT_FUNCTIONS[self.rope_type]
        inv_freq, scaling = rule(config, self.inv_freq.device, seq_len=cache_size, **extra)
        return inv_freq.double(), float(scaling)


@dataclass
class TableRecorder:
    """Remember what each rotary module of a decoder returns for one position.

    Use `record` as a forward hook with keyword arguments.
    """

    outputs: dict[tuple[nn.Module, str | None], tuple[Tensor, torch.dtype | None]] = field(
        default_factory=dict
    )

    def record(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        """Keep a table and, unless it is that of the hidden states, its dtype."""
        table = output[0] if isinstance(output, tuple) else output
        if isinstance(table, Tensor):
            follows = table.dtype == hidden_states_of(args, kwargs).dtype
            found = (table, None if follows else table.dtype)
            self.outputs[module, layer_type_of(args, kwargs)] = found

    def tables(self, position: int) -> tuple[RotaryTable, ...]:
        """Return how each module makes its tables, given the position they were made for.

        Raises:
            UnsupportedModelError: a table is not made of angles inv_freq x position.
        """
        return tuple(
            _recognized(module, layer_type, *output, position)
            for (module, layer_type), output in self.outputs.items()
        )


def _recognized(
    module: nn.Module,
    layer_type: str | None,
    output: Tensor,
    dtype: torch.dtype | None,
    position: int,
) -> RotaryTable:
    forms: tuple[Columns, ...] = ("concatenated", "repeated", "single")
    cos = (output.real if output.is_complex() else output).double()
    for columns in ("complex",) if output.is_complex() else forms:
        table = RotaryTable(module, layer_type, columns, dtype)
        angles = table.inv_freq.double() * position
        expected = expand_columns(angles.cos() * table.attention_scaling, columns)
        same_width = expected.shape[-1] == cos.shape[-1]
        if same_width and torch.allclose(expected.expand_as(cos), cos, atol=0.01):
            return table
    raise UnsupportedModelError(
        f"{type(module).__name__} cannot stream: it makes rotary tables in an unknown way; use a "
        "decoder whose tables are cosines and sines of inv_freq x position"
    )


def rotary_modules(decoder: nn.Module) -> list[nn.Module]:
    """Return the modules that hold rotary frequencies."""

    def holds_frequencies(module: nn.Module) -> bool:
        return any(name.endswith("inv_freq") for name, _ in module.named_buffers(recurse=False))

    return [module for module in decoder.modules() if holds_frequencies(module)]


def layer_type_of(args: Any, kwargs: Any) -> str | None:
    """Return the kind of layer that a rotary module was called for, if it was told one."""
    value = kwargs.get("layer_type", args[2] if len(args) > 2 else None)
    return value if isinstance(value, str) else None


def hidden_states_of(args: Any, kwargs: Any) -> Tensor:
    """Return the hidden states that a rotary module was called with."""
    given: Tensor = args[0] if args else next(iter(kwargs.values()))
    return given
