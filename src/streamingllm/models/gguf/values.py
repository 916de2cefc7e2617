"""Values of parameters that llama.cpp keeps in another form than transformers."""

from __future__ import annotations

from torch import Tensor


def decay_logarithm(values: Tensor) -> Tensor:
    """Return the logarithm of decays, which a file keeps as negative numbers."""
    return (-values).log()
