"""Attention that was trained with a sink of its own, in families that have none.

A family such as gpt-oss brings its sink logits. A checkpoint of another family says in its
configuration, by `attention_sink`, what its attention has in addition:

- `softmax1`: a logit of 0 joins each softmax (off-by-one softmax);
- `logit`: a learned logit per head joins it, `self_attn.sinks`, as in gpt-oss;
- `gate`: the output of each head is multiplied by the sigmoid of a linear layer of the hidden
  states, `self_attn.gate_proj`.

Sources: Miller, "Attention Is Off By One", 2023; OpenAI, gpt-oss model card (arXiv 2508.10925);
Qiu et al., "Gated Attention" (arXiv 2505.06708).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import eager_mask

from streamingllm.errors import ConfigError, UnsupportedFeatureError, UnsupportedModelError

KINDS = ("softmax1", "logit", "gate")
PLAIN, STREAMING = "streamingllm_plain", "streamingllm"
_Arguments = tuple[tuple[Any, ...], dict[str, Any]]


def sink_kind(config: Any) -> str | None:
    """Return the kind of sink that a configuration of transformers names; None if it names none.

    Raises:
        ConfigError: there is no such kind.
    """
    kind = getattr(config.get_text_config(), "attention_sink", None)
    if kind is not None and kind not in KINDS:
        raise ConfigError(f"attention_sink={kind!r} is unknown; choose one of {', '.join(KINDS)}")
    return kind


def class_with_sinks(model_class: type[PreTrainedModel]) -> type[PreTrainedModel]:
    """Return a subclass, of the same name, whose models have the sinks that their config names."""

    def initialize(self: Any, config: Any, *args: Any, **kwargs: Any) -> None:
        model_class.__init__(self, config, *args, **kwargs)
        _add_sinks(self)

    names = {"__init__": initialize, "__module__": model_class.__module__}
    return type(model_class.__name__, (model_class,), names)


def plain_implementation(model: PreTrainedModel) -> str:
    """Return the name of the attention that computes a model by itself under any mask."""
    return "eager" if sink_kind(model.config) is None else PLAIN


def plain_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    s_aux: Tensor | None = None,
    output_gate: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor]:
    """Attend by plain products inside a transformers model that is not streaming.

    Args:
        module: the model's attention layer.
        query: [batch, num_heads, seq, head_dim].
        key: [batch, num_kv_heads, keys, head_dim].
        value: [batch, num_kv_heads, keys, value_dim].
        attention_mask: added to scores, [batch, 1, seq, keys]; None for none.
        scaling: factor of the scores; 1 / sqrt(head_dim) if None.
        dropout: share of the weights that training sets to 0.
        s_aux: logits that join the softmax, [num_heads].
        output_gate: see `gated`.
        **kwargs: what else models tell an attention function.

    Returns:
        output [batch, seq, num_heads, head_dim] and weights [batch, num_heads, seq, keys].

    Raises:
        UnsupportedModelError: the family keeps arguments from its attention function.
    """
    if s_aux is None and output_gate is None:
        raise UnsupportedModelError(
            f"{type(module).__name__} does not hand its arguments on to attention, so it can have "
            "no attention_sink; use a family such as Llama, Qwen or Mistral"
        )
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    scores = query @ key.mT * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if attention_mask is not None:
        scores = scores + attention_mask
    if s_aux is not None:
        column = s_aux.to(scores.dtype).view(1, -1, 1, 1).expand(*scores.shape[:3], 1)
        scores = torch.cat((scores, column), dim=-1)
    weights = scores.softmax(dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32))
    weights = weights[..., : key.shape[2]].to(value.dtype)
    weights = nn.functional.dropout(weights, dropout, training=module.training)
    return gated((weights @ value).transpose(1, 2).contiguous(), output_gate), weights


def gated(out: Tensor, output_gate: Tensor | None) -> Tensor:
    """Return the output of attention times a gate.

    Args:
        out: [batch, seq, num_heads, head_dim].
        output_gate: between 0 and 1, [batch, seq, num_heads * head_dim]; None for none.
    """
    return out if output_gate is None else out * output_gate.view(out.shape)


def _add_sinks(model: PreTrainedModel) -> None:
    """Give each attention layer of a model the weights and arguments of its kind of sink."""
    config: Any = model.config.get_text_config()
    kind = sink_kind(config)
    if kind is None:
        return
    layers = [m for name, m in model.named_modules() if name.rpartition(".")[2] == "self_attn"]
    if len(layers) != config.num_hidden_layers or any(hasattr(m, "sinks") for m in layers):
        raise UnsupportedModelError(
            f"{config.model_type} cannot have attention_sink={kind!r}: only {len(layers)} of its "
            f"{config.num_hidden_layers} layers have a self_attn without sinks; use Llama's layout"
        )
    for layer in layers:
        _add_weights(layer, kind, config.num_attention_heads)
        layer.register_forward_pre_hook(_with_arguments, with_kwargs=True)
    model.set_attn_implementation(PLAIN)


def _add_weights(layer: Any, kind: str, num_heads: int) -> None:
    layer.sink_kind, layer.num_sink_logits = kind, num_heads
    if kind == "logit":
        layer.sinks = nn.Parameter(torch.zeros(num_heads))
    if kind == "gate":
        layer.gate_proj = nn.Linear(layer.q_proj.in_features, layer.o_proj.in_features)


def _with_arguments(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Arguments:
    """Hand the sinks to the attention function as models with sinks of their own do.

    Raises:
        UnsupportedFeatureError: the model was set to an attention that takes no sinks.
    """
    implementation = layer.config._attn_implementation
    if implementation not in (PLAIN, STREAMING):
        raise UnsupportedFeatureError(
            f"attn_implementation={implementation!r} would leave out attention_sink="
            f"{layer.sink_kind!r}; set {PLAIN!r}"
        )
    hidden_states = kwargs.get("hidden_states", args[0] if args else None)
    assert isinstance(hidden_states, Tensor)
    if layer.sink_kind == "gate":
        return args, kwargs | {"output_gate": layer.gate_proj(hidden_states).sigmoid()}
    if layer.sink_kind == "logit":
        return args, kwargs | {"s_aux": layer.sinks}
    return args, kwargs | {"s_aux": hidden_states.new_zeros(layer.num_sink_logits)}


AttentionInterface.register(PLAIN, plain_attention)
AttentionMaskInterface.register(PLAIN, eager_mask)
