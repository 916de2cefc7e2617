"""The door into transformers: an attention function and a mask function of our own."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface

from streamingllm.attention import sdpa
from streamingllm.attention.forward_plan import ForwardPlan, active_plan
from streamingllm.errors import UnsupportedFeatureError

IMPLEMENTATION = "streamingllm"


def stream_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attend with sinks and a window inside a transformers model.

    Args:
        module: the model's attention layer; its `layer_idx` picks the plan.
        query: [batch, num_heads, seq, head_dim].
        key, value: what the cache returned, [batch, num_kv_heads, columns, head_dim].
        attention_mask: the `ForwardPlan` that `stream_mask` handed to the model.
        scaling: factor of the scores; 1 / sqrt(head_dim) if None.
        softcap, s_aux: see `reference.attend`.

    Returns:
        output [batch, seq, num_heads, value_dim] and no attention weights.

    Raises:
        UnsupportedFeatureError: attention weights were asked for.
    """
    if kwargs.get("output_attentions"):
        raise UnsupportedFeatureError(
            "output_attentions=True: a stream's fused attention keeps no weights; leave it False"
        )
    plan = attention_mask
    assert isinstance(plan, ForwardPlan), "the model replaced the mask it was given"
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    out = sdpa.attend(
        query,
        key,
        value,
        plan.windows[layer],
        plan.encodings[layer],
        scale=query.shape[-1] ** -0.5 if scaling is None else scaling,
        softcap=softcap,
        sink_logits=s_aux,
    )
    return out.transpose(1, 2).contiguous(), None


def stream_mask(*args: Any, **kwargs: Any) -> ForwardPlan | None:
    """Return the plan of the running forward pass in place of a mask."""
    return active_plan.get()


AttentionInterface.register(IMPLEMENTATION, stream_attention)
AttentionMaskInterface.register(IMPLEMENTATION, stream_mask)
