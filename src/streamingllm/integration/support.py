"""Check whether a model can stream, and read the window of each of its layers."""

from __future__ import annotations

import inspect
from collections.abc import Collection
from typing import TYPE_CHECKING

from torch import nn

from streamingllm.errors import UnsupportedModelError

if TYPE_CHECKING:  # transformers' modelling code takes seconds to import, a refusal's text none
    from transformers import PreTrainedConfig, PreTrainedModel

_LEARNED_POSITIONS = ("wpe", "embed_positions", "position_embedding", "position_embeddings")
_ALTERNATIVES = "use a decoder with rotary or ALiBi positions (Llama, Qwen, Mistral, Gemma, MPT...)"
RECURRENT = "its recurrent (state-space or linear attention) layers never forget a token by name"


def check_can_stream(model: PreTrainedModel, adapted: Collection[str]) -> None:
    """Refuse a model whose architecture cannot stream.

    Args:
        model: the model.
        adapted: families, by `config.model_type`, that need not use the attention interface.

    Raises:
        UnsupportedModelError: with the reason and the alternatives.
    """
    config = model.config.get_text_config()
    family = model.config.model_type
    if model.config.is_encoder_decoder:
        reason = "an encoder-decoder reads its whole input at once and has no rolling window"
    elif not model.can_generate() or not hasattr(config, "num_hidden_layers"):
        reason = "it is not a decoder that predicts next tokens"
    elif _has_recurrent_state(model):
        reason = RECURRENT
    elif "chunked_attention" in _layer_types(model):
        reason = "its layers attend in fixed chunks, which a rolling window would cut apart"
    elif (name := _learned_positions(model)) is not None:
        reason = learned_positions(name)
    elif family not in adapted and not _uses_attention_interface(model):
        reason = (
            "it computes attention outside transformers' attention interface and has no adapter "
            f"here, unlike {', '.join(sorted(adapted))}"
        )
    else:
        return
    raise UnsupportedModelError(refusal(family, reason))


def refusal(family: str, reason: str) -> str:
    """Return the message that refuses a family."""
    return f"{family} cannot stream: {reason}; {_ALTERNATIVES}"


def learned_positions(name: str) -> str:
    """Return the reason that refuses a model with learned positions in a module of that name."""
    return (
        f"its positions are learned ({name}): there are none past the trained length, and a "
        "cached key cannot be moved to another position"
    )


def layer_windows(model: PreTrainedModel) -> tuple[int | None, ...]:
    """Return each layer's own sliding window in tokens, None where it sees everything."""
    config = model.config.get_text_config()
    window: int | None = getattr(config, "sliding_window", None)
    if getattr(config, "use_sliding_window", True) is False:
        window = None
    types = _layer_types(model)
    if not types:
        return (window,) * int(config.num_hidden_layers)
    return tuple(window if kind == "sliding_attention" else None for kind in types)


def configs_of(model: PreTrainedModel) -> list[PreTrainedConfig]:
    """Return the configs that the model's modules read their attention implementation from."""
    from transformers import PreTrainedConfig

    configs = [getattr(module, "config", None) for module in model.modules()]
    return list({id(c): c for c in configs if isinstance(c, PreTrainedConfig)}.values())


def _layer_types(model: PreTrainedModel) -> list[str]:
    return list(getattr(model.config.get_text_config(), "layer_types", None) or [])


def _has_recurrent_state(model: PreTrainedModel) -> bool:
    stateful = bool(getattr(model, "_is_stateful", False))
    attention = {"full_attention", "sliding_attention", "chunked_attention"}
    return stateful or any(kind not in attention for kind in _layer_types(model))


def _uses_attention_interface(model: PreTrainedModel) -> bool:
    return hasattr(inspect.getmodule(type(model.get_decoder())), "ALL_ATTENTION_FUNCTIONS")


def _learned_positions(model: PreTrainedModel) -> str | None:
    name: str
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) and name.rsplit(".", 1)[-1] in _LEARNED_POSITIONS:
            return name
    return None
