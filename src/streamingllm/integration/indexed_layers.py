"""Layers whose indexer chooses the tokens that a query attends to (DeepSeek sparse attention).

An indexer chooses its `index_topk` best tokens. A query that sees no more than that attends to all
of them, so a stream of at most `index_topk` cached tokens needs no indexer.
Source: DeepSeek-AI, "DeepSeek-V3.2" (arXiv 2512.02556), section 2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from functools import partial, update_wrapper
from typing import Any

import torch
from torch import Tensor, nn

from streamingllm.attention.forward_plan import active_plan
from streamingllm.integration.adapters import Undo, override


def indexers(decoder: nn.Module) -> list[Any]:
    """Return the indexers of a decoder that choose single tokens, up to `index_topk` of them."""
    found = [
        indexer
        for module in decoder.modules()
        if isinstance(indexer := getattr(module, "indexer", None), nn.Module)
    ]
    return found if all(isinstance(getattr(i, "index_topk", None), int) for i in found) else []


def shadow_indexers(found: Iterable[nn.Module]) -> Undo:
    """Let indexers choose nothing in passes that follow a plan, which sees all; return the undo."""
    with ExitStack() as undo:
        for indexer in found:
            forward = update_wrapper(partial(_choose, indexer.forward), indexer.forward)
            undo.callback(override(indexer, "forward", forward))
        return undo.pop_all().close


def _choose(own_forward: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
    if active_plan.get() is None:
        return own_forward(*args, **kwargs)
    hidden_states: Tensor = args[0] if args else kwargs["hidden_states"]
    return hidden_states.new_empty((*hidden_states.shape[:2], 0), dtype=torch.int32)
