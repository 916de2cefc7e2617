"""Models whose parameters have no values yet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel


class _WithoutValues(TorchFunctionMode):
    """Let `torch.empty`, which parameters are made of, reserve no memory."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.empty:
            kwargs = {**kwargs, "device": "meta"}
        return func(*args, **kwargs)


def build_skeleton(config: PreTrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    """Build a decoder whose buffers have their values and whose large parameters have none.

    Parameters without values are on the device `meta`. The caller gives each one its value.

    Args:
        config: of the decoder.
        dtype: of its parameters.
    """
    with _WithoutValues():
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=dtype)
    return model
