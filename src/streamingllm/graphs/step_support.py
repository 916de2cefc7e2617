"""Reasons for which single tokens of a model go through an ordinary pass."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedModel

from streamingllm.graphs.step_check import check_step
from streamingllm.integration.attach import Attachment
from streamingllm.integration.checked_cache import AttentionFacts
from streamingllm.kernels.limits import Heads, decode_unsupported_reason
from streamingllm.positions.base import PositionEncoding
from streamingllm.positions.rope import RopeEncoding


def unsupported_reason(
    model: PreTrainedModel, attachment: Attachment, encodings: Sequence[PositionEncoding]
) -> str | None:
    """Return why a model's single tokens go through an ordinary pass; None if they need not.

    The step of a model without any other reason is run once, on a few tokens; see `step_check`.
    """
    reason = declared_unsupported_reason(model, attachment, encodings)
    return check_step(model, attachment) if reason is None else reason


def declared_unsupported_reason(
    model: PreTrainedModel, attachment: Attachment, encodings: Sequence[PositionEncoding]
) -> str | None:
    """Return the reason that can be told without running a step; None if there is none."""
    facts = attachment.facts
    if facts is None:
        return f"{model.config.model_type} bypasses transformers' attention interface"
    if attachment.hybrid is not None:
        return "its recurrent layers have no decode step"
    for encoding in encodings:
        if encoding.has_bias:
            return f"{encoding.name} adds a bias to scores"
        if isinstance(encoding, RopeEncoding) and encoding.in_values:
            return "its cache holds latent keys"
    if facts.changed_layers:
        return f"layer {facts.changed_layers[0]} attends to other keys than its cache returns"
    if any(tensor.device != model.device for tensor in model.parameters()):
        return "the model lies on several devices"
    return _kernels_unsupported_reason(model, facts)


def _kernels_unsupported_reason(model: PreTrainedModel, facts: AttentionFacts) -> str | None:
    """Return why no kernel takes a model's keys and values, as wide as the self-check saw them."""
    for key_dim, value_dim in sorted(facts.head_dims):
        q, k, v = Heads(1, key_dim), Heads(1, key_dim), Heads(1, value_dim)
        reason = decode_unsupported_reason(q, k, v, model.dtype, model.device)
        if reason is not None:
            return reason
    return None
