"""A program without weights compiles to what the whole one compiles to."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from streamingllm.graphs.hollow_program import fill, hollowed


class Product(nn.Module):
    """A module with a large parameter, a small buffer and a large buffer that is not kept."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(200, 300).requires_grad_(False)
        self.register_buffer("factor", torch.tensor([2.0]))
        self.register_buffer("offset", torch.randn(300, 100).T, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return [batch, 300]."""
        offset: Tensor = self.get_buffer("offset")
        product: Tensor = self.linear(x) * self.get_buffer("factor") + offset.sum(0)
        return product


def test_a_hollow_program_has_no_weights_and_all_shapes(tmp_path: Path) -> None:
    module, x = Product(), torch.randn(3, 200)
    program = torch.export.export(module, (x,))
    hollow, outlines = hollowed(program)
    path = tmp_path / "program.pt2"
    torch.export.save(hollow, path)
    assert path.stat().st_size < module.linear.weight.nbytes / 2

    read = torch.export.load(path)
    assert read.state_dict["linear.weight"].numel() == 0
    fill(read, outlines)
    assert torch.equal(read.state_dict["factor"], torch.tensor([2.0]))  # small: with its value
    values = {**program.state_dict, **program.constants}
    filled = {**read.state_dict, **read.constants}
    assert filled.keys() == values.keys()
    for name, value in values.items():
        assert isinstance(filled[name], type(value))
        assert filled[name].shape == value.shape
        assert filled[name].stride() == value.stride()
        filled[name].data.copy_(value)
    assert torch.equal(read.module()(x), module(x))
    assert torch.equal(program.module()(x), module(x))  # the original still has its weights
