"""Rotary tables that are exact at any stream position."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial, update_wrapper
from typing import Any

from torch import nn

from streamingllm.attention.forward_plan import active_plan
from streamingllm.integration.adapters import Undo, override
from streamingllm.positions.detect import ModelPositions
from streamingllm.positions.rope import RopeEncoding
from streamingllm.positions.tables import (
    RotaryTable,
    hidden_states_of,
    layer_type_of,
    rotary_modules,
)

_Tables = dict[str | None, tuple[int, RotaryTable]]


def shadow_rotary_modules(decoder: nn.Module, positions: ModelPositions) -> Undo:
    """Let rotary modules return exact tables in passes that follow a plan; return the undo."""
    with ExitStack() as undo:
        for module in rotary_modules(decoder):
            tables = _tables_of(module, positions)
            forward = update_wrapper(partial(_look_up, module.forward, tables), module.forward)
            undo.callback(override(module, "forward", forward))
        return undo.pop_all().close


def _tables_of(rotary: nn.Module, positions: ModelPositions) -> _Tables:
    """Return a module's tables by layer type, each with the first layer that uses it."""
    return {
        table.layer_type: (layer, table)
        for table in positions.tables
        if table.module is rotary and (layer := positions.first_user(table)) is not None
    }


def _look_up(own_forward: Callable[..., Any], tables: _Tables, *args: Any, **kwargs: Any) -> Any:
    plan = active_plan.get()
    used = tables.get(layer_type_of(args, kwargs))
    if plan is None or used is None:
        return own_forward(*args, **kwargs)
    layer, table = used
    encoding = plan.encodings[layer]
    assert isinstance(encoding, RopeEncoding)
    dtype = table.dtype or hidden_states_of(args, kwargs).dtype
    return encoding.tables(plan.chunk.model_positions, table.columns, dtype)
