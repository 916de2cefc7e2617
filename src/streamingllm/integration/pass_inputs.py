"""Check the inputs of a forward pass with a streaming cache."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig

from streamingllm.cache.stream_positions import StreamPositions
from streamingllm.errors import InputError, RewindError, UnsupportedFeatureError


def tensor_input(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Return the token ids [batch, seq] or vectors [batch, seq, hidden] of a pass.

    Raises:
        InputError: the pass has neither.
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
            f"attention_mask has {mask.shape[1]} columns for {inputs.shape[1]} new tokens; give "
            "one for each"
        )
    valid = mask[:, -inputs.shape[1] :].to(device=inputs.device, dtype=torch.bool)
    return None if bool(valid.all()) else valid


@runtime_checkable
class _RewindingCache(Protocol):
    """A cache that counts tokens and columns, and can take tokens back."""

    positions: StreamPositions

    @property
    def num_seen_tokens_per_stream(self) -> Tensor: ...

    def rewind(self, num_tokens: Tensor) -> None: ...


def apply_mask(mask: Tensor | None, inputs: Tensor, cache: object) -> None:
    """Apply what a mask says about the columns fed before this pass.

    `generate` fills a row that has ended with padding, and marks it as such only in the next call.
    Such tokens are taken back.

    Args:
        mask: [batch, columns], 0 at padding; None, or the mask of the new columns only, says
            nothing about earlier ones.
        inputs: the new ids [batch, seq] or vectors [batch, seq, hidden].
        cache: the streaming cache of the pass; its streams lose the tokens that the mask hides.

    Raises:
        InputError: the mask contradicts the columns fed before, and they cannot be taken back.
    """
    if mask is None or not isinstance(cache, _RewindingCache):
        return
    num_columns = cache.positions.num_columns
    if num_columns == 0 or mask.shape[1] != num_columns + inputs.shape[1]:
        return
    past = mask[:, :num_columns].bool().cpu()
    seen = cache.num_seen_tokens_per_stream
    hidden = seen - past.sum(1)
    if len(seen) != len(past) or not bool(hidden.any()):
        return
    columns = torch.arange(1, num_columns + 1)
    num_trailing = num_columns - torch.where(past, columns, 0).amax(1)
    for row, (count, trailing) in enumerate(zip(hidden.tolist(), num_trailing, strict=True)):
        if count not in (0, int(trailing)):
            raise InputError(
                f"attention_mask shows {seen[row] - count} tokens of row {row} before the new "
                f"ones, but the cache was fed {seen[row]}; pass the mask of the earlier calls"
            )
    try:
        cache.rewind(hidden)
    except RewindError as error:
        raise InputError(
            f"attention_mask hides {int(hidden.max())} tokens fed before, more than the cache can "
            "take back; make the SinkCache with a higher max_rewind_tokens"
        ) from error
    cache.positions.num_columns = num_columns  # the columns stay, as padding


def check_unread(input_ids: Tensor, num_unread: int | None, num_read: int) -> None:
    """Refuse a turn that `generate` would cut at the wrong token without the whole mask.

    Raises:
        InputError: every column has been fed to the cache before.
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


def check_use_cache(kwargs: dict[str, Any]) -> None:
    """Refuse a pass that is told not to use the cache it is given.

    Raises:
        UnsupportedFeatureError: `use_cache` is False.
    """
    if kwargs.get("use_cache") is False:
        raise UnsupportedFeatureError(
            "use_cache=False contradicts past_key_values=SinkCache; set use_cache=True, or leave "
            "past_key_values out"
        )


def check_training(decoder: nn.Module) -> None:
    """Refuse gradient checkpointing in training, which takes the cache from the layers.

    Raises:
        UnsupportedFeatureError: a module of the decoder checkpoints gradients.
    """
    if decoder.training and any(
        getattr(module, "gradient_checkpointing", False) and module.training
        for module in decoder.modules()
    ):
        raise UnsupportedFeatureError(
            "gradient_checkpointing=True drops the SinkCache while the model trains; call "
            "model.eval() or model.gradient_checkpointing_disable()"
        )
