"""What a forward pass with a streaming cache may be given."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedConfig

from streamingllm.errors import InputError, UnsupportedFeatureError


def tensor_input(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Return the token ids [batch, seq] or vectors [batch, seq, hidden] of a pass.

    Raises:
        InputError: there are none.
    """
    for candidate in (kwargs.get("input_ids"), kwargs.get("inputs_embeds"), *args[:1]):
        if isinstance(candidate, Tensor):
            return candidate
    raise InputError("input_ids: a forward pass with a SinkCache needs input_ids or inputs_embeds")


def valid_tokens(mask: Any, inputs: Tensor) -> Tensor | None:
    """Return which of a pass's tokens are not padding, bool, [batch, seq]; None if all.

    Raises:
        UnsupportedFeatureError: the mask says more than which tokens are padding.
        InputError: the mask is too short.
    """
    if mask is None:
        return None
    if not isinstance(mask, Tensor) or mask.ndim != 2:
        raise UnsupportedFeatureError(
            "attention_mask: a SinkCache takes a 2-D padding mask [batch, tokens], not a custom one"
        )
    if mask.shape[1] < inputs.shape[1]:
        raise InputError(
            f"attention_mask has {mask.shape[1]} columns: must cover {inputs.shape[1]} new tokens"
        )
    valid = mask[:, -inputs.shape[1] :].to(device=inputs.device, dtype=torch.bool)
    return None if bool(valid.all()) else valid


def check_unread(input_ids: Tensor, num_unread: int | None, num_read: int) -> None:
    """Refuse a turn that `generate` would cut at the wrong token, for want of the whole mask.

    Raises:
        InputError: nothing is left that the cache has not read.
    """
    if num_unread is not None and num_unread <= 0:
        raise InputError(
            f"input_ids has {input_ids.shape[1]} columns, but the cache has read {num_read}: pass "
            "all ids so far, or only the new ones with an attention_mask for all"
        )


def check_outputs(kwargs: dict[str, Any], configs: Iterable[PreTrainedConfig]) -> None:
    """Refuse to return attention weights.

    Raises:
        UnsupportedFeatureError: they are asked for, by argument or by config.
    """
    asked = kwargs.get("output_attentions")
    if any(config.output_attentions for config in configs) if asked is None else asked:
        raise UnsupportedFeatureError(
            "output_attentions=True: attention in a stream keeps no weights; leave it False"
        )
