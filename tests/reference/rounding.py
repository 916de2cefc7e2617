"""Bounds on what rounding changes in logits, with a control that must change them more."""

from __future__ import annotations

import torch
from torch import Tensor

# Two ways to the same step round a row to another code now and then.
ROUNDED = {"rtol": 0.0, "atol": 0.05}


def assert_rounded_alike(found: Tensor, expected: Tensor, broken: Tensor) -> None:
    """Check that logits agree up to rounding, by a tolerance that would notice what is broken.

    Args:
        found: logits, of any shape.
        expected: what they should be.
        broken: what they would be if the code lost or moved an entry of its window.
    """
    torch.testing.assert_close(found, expected, **ROUNDED)
    assert float((broken - expected).abs().max()) > 3 * ROUNDED["atol"]


def assert_same_logits(found: Tensor, expected: Tensor) -> None:
    """Check logits [..., vocab] of packed weights, whose products take activations in 16 bits.

    One product loses 2e-5. A random model makes much of that for some tokens.
    """
    relative = (found - expected).norm(dim=-1) / expected.norm(dim=-1)
    assert float(relative.median()) < 1e-3
    assert float(relative.max()) < 0.03
