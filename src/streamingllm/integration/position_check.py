"""Find the first position that changes more of a model than its rotary tables.

In a stream the tables are ours and position ids are 0. Nothing else may look at them. Some models
scale queries by their position, from a certain one on. As long as no query stands that far inside
the cache, 0 is as good as its true position.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import PreTrainedModel

from streamingllm.integration.sink_cache import SinkCache

if TYPE_CHECKING:
    from streamingllm.integration.attach import Attachment

LATE_POSITION = 50_000
NUM_TOKENS = 5
# Where the same pass gives other bits twice, as sums of experts do on a GPU.
TOLERANCE_FULL, TOLERANCE_HALF = 1e-3, 0.02


def first_scaled_position(model: PreTrainedModel, attachment: Attachment) -> int | None:
    """Return the first position id that changes hidden states, None if there is none.

    Args:
        model: a causal language model.
        attachment: of its decoder.
    """
    config = model.config.get_text_config()
    most = getattr(config, "max_position_embeddings", None) or LATE_POSITION + 1
    first, last = 0, min(LATE_POSITION, most - 1)
    expected = _hidden_states(model, attachment, first)
    if torch.equal(expected, _hidden_states(model, attachment, last)):
        return None
    is_exact = torch.equal(expected, _hidden_states(model, attachment, first))

    def is_changed(position: int) -> bool:
        hidden = _hidden_states(model, attachment, position)
        return not (torch.equal(hidden, expected) if is_exact else _agree(hidden, expected))

    if not is_changed(last):
        return None
    while last - first > 1:
        middle = (first + last) // 2
        first, last = (first, middle) if is_changed(middle) else (middle, last)
    return last


def _hidden_states(model: PreTrainedModel, attachment: Attachment, position: int) -> Tensor:
    """Return hidden states of a few tokens that are all given one position id."""
    num_ids = int(model.config.get_text_config().vocab_size)
    ids = torch.arange(NUM_TOKENS, device=model.device)[None] % num_ids
    numbers = torch.tensor([[position]], device=model.device)
    with (
        torch.no_grad(),
        SinkCache(model, 0, NUM_TOKENS, max_rewind_tokens=0) as cache,
        attachment.position_ids(numbers),
    ):
        hidden: Tensor = attachment.decoder(ids, past_key_values=cache, use_cache=True)[0]
    return hidden


def _agree(hidden: Tensor, expected: Tensor) -> bool:
    apart = (hidden - expected).double().norm(dim=-1)
    relative = apart / expected.double().norm(dim=-1).clamp(min=1e-30)
    half = hidden.dtype.itemsize < torch.float32.itemsize
    return float(relative.median()) <= (TOLERANCE_HALF if half else TOLERANCE_FULL)
