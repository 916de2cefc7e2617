"""An exported step without its weights: a compiler needs their shapes only."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

# By part of the program, then by name: shape and strides.
Outlines = dict[str, dict[str, tuple[list[int], list[int]]]]
_PARTS = ("_state_dict", "_constants")
_SMALL_BYTES = 1 << 16  # a compiler may look into smaller tensors, and they cost nothing


def hollowed(
    program: torch.export.ExportedProgram,
) -> tuple[torch.export.ExportedProgram, Outlines]:
    """Return a program whose large tensors are empty, and how large they were.

    Writing the weights of a model takes seconds for each gigabyte, and a folder with room for them.

    Args:
        program: is left as it is.
    """
    hollow, outlines = copy.copy(program), Outlines()
    for part in _PARTS:
        tensors: dict[str, Any] = getattr(program, part)
        large = {
            name: x
            for name, x in tensors.items()
            if isinstance(x, Tensor) and x.nbytes > _SMALL_BYTES
        }
        outlines[part] = {name: (list(x.shape), list(x.stride())) for name, x in large.items()}
        empty = {name: _like(x, x.new_empty(0)) for name, x in large.items()}
        setattr(hollow, part, {**tensors, **empty})
    return hollow, outlines


def fill(program: torch.export.ExportedProgram, outlines: Outlines) -> None:
    """Give a hollow program tensors of its shapes again, without values.

    Args:
        program: is changed.
        outlines: from `hollowed`.
    """
    for part, sizes in outlines.items():
        tensors: dict[str, Any] = getattr(program, part)
        for name, (shape, strides) in sizes.items():
            x = tensors[name]
            values = torch.empty_strided(shape, strides, dtype=x.dtype, device=x.device)
            tensors[name] = _like(x, values)


def _like(x: Tensor, values: Tensor) -> Tensor:
    """Make a parameter of values if `x` is one."""
    return nn.Parameter(values, requires_grad=False) if isinstance(x, nn.Parameter) else values
