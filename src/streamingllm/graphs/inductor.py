"""A decode step compiled in this process: what lies between our operators becomes few kernels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def fuse(program: torch.export.ExportedProgram) -> Callable[[list[Tensor]], list[Tensor]]:
    """Return a compiled step that computes with the tensors of `program`, which it shares.

    It takes all of the step's tensors in one list and writes the rings among them, of any size.
    Not `torch.compile`: that would begin at the first step, and begin anew for other rings.

    Args:
        program: an exported step; it is used up.

    Raises:
        Exception: the compiler fails, in ways of its own.
    """
    module = program.graph_module
    tensors = {**program.state_dict, **program.constants}
    kept, inputs = [], []
    nodes = module.graph.find_nodes(op="placeholder")
    for node, spec in zip(nodes, program.graph_signature.input_specs, strict=True):
        is_tensor = isinstance(node.meta["val"], Tensor)
        if spec.target is not None and node.users:
            kept.append(tensors[spec.target].detach())
        elif spec.target is not None or not is_tensor:  # a weight that has joined others, or None
            module.graph.erase_node(node)
            continue
        inputs.append(node.meta["val"])
    module.recompile()
    # Rings of the example are small; operators take them as they are.
    with torch.no_grad():
        run = torch._inductor.compile(module, inputs, options={"size_asserts": False})
    return lambda step_tensors: run(*kept, *step_tensors)
