"""What eight-bit rows may change in logits, and a control that must change them more."""

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
