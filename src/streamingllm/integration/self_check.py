"""Try a model out before it is trusted with a stream.

No declaration says what a model does with the masks, tables and arguments of its attention. So a
few tokens are run as the model runs them by itself and as a stream would. Nothing is evicted, so
both must come to the same hidden states.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from streamingllm.attention.forward_plan import ForwardPlan
from streamingllm.attention.plan import Chunk, WindowPlan
from streamingllm.errors import UnsupportedModelError
from streamingllm.positions.base import PositionEncoding

CHECK_TOKENS = 8
# Median over tokens of the relative difference: kernels round differently, and a mixture of
# experts may send a token elsewhere for it.
TOLERANCE_FULL, TOLERANCE_HALF = 0.01, 0.2


def check_ids(model: PreTrainedModel) -> Tensor:
    """Return a few different token ids, int64, [1, CHECK_TOKENS]."""
    num_ids = int(model.config.get_text_config().vocab_size)
    ids = torch.arange(CHECK_TOKENS, device=model.device)
    return ids[None] % num_ids


def check_plan(
    ids: Tensor, windows: Sequence[int | None], encodings: tuple[PositionEncoding, ...]
) -> ForwardPlan:
    """Plan a pass over `ids` [1, seq] from the start of a stream without sinks."""
    zero, positions = ids.new_zeros(1), torch.arange(ids.shape[1], device=ids.device)[None]
    chunk = Chunk(zero, positions, None, zero, batch_size=1)
    no_sinks = ids.new_zeros(0)
    plans = {w: WindowPlan(chunk, no_sinks, w or ids.shape[1]) for w in set(windows)}
    return ForwardPlan(chunk, tuple(plans[w] for w in windows), encodings)


def agree(by_itself: Tensor, in_stream: Tensor) -> bool:
    """Whether hidden states [1, seq, hidden] are the same but for rounding."""
    apart = (by_itself - in_stream).double().norm(dim=-1)
    relative = apart / by_itself.double().norm(dim=-1).clamp(min=1e-30)
    half = by_itself.dtype.itemsize < torch.float32.itemsize
    return float(relative.median()) <= (TOLERANCE_HALF if half else TOLERANCE_FULL)


def check_failed(model: PreTrainedModel) -> UnsupportedModelError:
    """Return the error for a model that did not pass."""
    return UnsupportedModelError(
        f"{model.config.model_type} cannot stream: its attention does more than a mask, a softmax "
        "and relative positions can express; use a decoder such as Llama, Qwen, Mistral or Gemma"
    )
