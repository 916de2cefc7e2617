"""The door into transformers: an attention function and a mask function of our own."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface

from streamingllm.attention.forward_plan import ForwardPlan, active_plan
from streamingllm.errors import UnsupportedModelError
from streamingllm.integration.trained_sinks import STREAMING, gated

IMPLEMENTATION = STREAMING


def stream_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    output_gate: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attend with sinks and a window inside a transformers model.

    Args:
        module: the model's attention layer; its `layer_idx` picks the plan.
        query: [batch, num_heads, seq, head_dim].
        key: what the cache returned, [batch, num_kv_heads, columns, head_dim].
        value: of the same columns, [batch, num_kv_heads, columns, value_dim].
        attention_mask: the `ForwardPlan` that `stream_mask` handed to the model.
        scaling: factor of the scores; 1 / sqrt(head_dim) if None.
        softcap: see `reference.attend`.
        s_aux: learned sink logits, see `reference.attend`.
        output_gate: of a model trained with one, see `gated`.
        **kwargs: what else models tell an attention function; the plan decides.

    Returns:
        output [batch, seq, num_heads, value_dim] and no attention weights.

    Raises:
        UnsupportedModelError: the model masks attention in a way of its own.
    """
    plan = attention_mask
    if not isinstance(plan, ForwardPlan):
        raise UnsupportedModelError(
            f"{type(module).__name__} cannot stream: its model makes masks of its own; "
            "use a decoder whose mask is causal or a sliding window"
        )
    out = plan.attend(
        plan.layer_of(module),
        query,
        key,
        value,
        scale=query.shape[-1] ** -0.5 if scaling is None else scaling,
        softcap=softcap,
        sink_logits=s_aux,
    )
    return gated(out.transpose(1, 2).contiguous(), output_gate), None


def stream_mask(*args: Any, **kwargs: Any) -> ForwardPlan | None:
    """Return the plan of the running forward pass in place of a mask."""
    return active_plan.get()


AttentionInterface.register(IMPLEMENTATION, stream_attention)
AttentionMaskInterface.register(IMPLEMENTATION, stream_mask)
