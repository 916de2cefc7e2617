"""Check whether a model can stream, and read the window of each of its layers."""

from __future__ import annotations

import inspect
from collections.abc import Collection
from typing import TYPE_CHECKING

from torch import nn

from streamingllm.errors import UnsupportedModelError

if TYPE_CHECKING:  # transformers' modelling code takes seconds to import, a refusal's text none
    from transformers import PreTrainedConfig, PreTrainedModel

_POSITION_TABLES = ("wpe", "embed_positions", "position_embedding", "position_embeddings")
_ALTERNATIVES = "use a decoder with rotary or ALiBi positions (Llama, Qwen, Mistral, Gemma, MPT...)"
_RECURRENT_KINDS = {"linear_attention", "conv", "hybrid", "hybrid_sliding"}
_SPECIAL_KINDS = {  # parts of the names of kinds of layers
    "chunked": "its layers attend in fixed chunks, which a rolling window would cut apart",
    "compressed": "its layers attend to compressed blocks of tokens, which no window can enter",
    "indexed": "an indexer with a cache of its own chooses the tokens that its layers attend to",
    "sparse": "its layers attend to blocks of tokens that they choose by content",
    "reference": "its layers keep the whole prompt visible, however long it is",
}
SCALED = "it scales attention by absolute positions, which have no end in a stream"
RECURRENT = "its recurrent (state-space or linear attention) layers never forget a token by name"


def check_can_stream(model: PreTrainedModel, adapted: Collection[str]) -> None:
    """Refuse a model whose architecture cannot stream.

    Args:
        model: the model.
        adapted: families, by `config.model_type`, that need not use the attention interface.

    Raises:
        UnsupportedModelError: with the reason and the alternatives.
    """
    from streamingllm.integration.hybrid_layers import hybrid_layers

    config = model.config.get_text_config()
    family = model.config.model_type
    if model.config.is_encoder_decoder:
        reason = "an encoder-decoder reads its whole input at once and has no rolling window"
    elif not model.can_generate() or not hasattr(config, "num_hidden_layers"):
        reason = "it is not a decoder that predicts next tokens"
    elif getattr(config, "use_bidirectional_attention", None) in (True, "all"):
        reason = "it reads a prompt in both directions, which needs all of it at once"
    elif _has_recurrent_state(model) and hybrid_layers(model) is None:
        reason = RECURRENT
    elif (special := _special_attention(model)) is not None:
        reason = special
    elif getattr(config, "attn_temperature_tuning", False):
        reason = SCALED
    elif (table := _position_table(model)) is not None:
        reason = sinusoidal_positions(table[0]) if table[1] else learned_positions(table[0])
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


def sinusoidal_positions(name: str) -> str:
    """Return the reason that refuses a model with a table of sines in a module of that name."""
    return (
        f"its positions come from a table of sines ({name}): there are none past its end, and a "
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
    """Return the configs that the decoder and what wraps it read their implementation from.

    Those of other parts, such as a vision tower, stay as they are.
    """
    from transformers import PreTrainedConfig

    modules = [model, *wrappers_of(model), *model.get_decoder().modules()]
    configs = [getattr(module, "config", None) for module in modules]
    return list({id(c): c for c in configs if isinstance(c, PreTrainedConfig)}.values())


def wrappers_of(model: PreTrainedModel) -> list[nn.Module]:
    """Return the modules between a model and its decoder, which may make masks for it."""
    decoder = model.get_decoder()
    return [
        module
        for module in model.modules()
        if module not in (model, decoder) and decoder in module.modules()
    ]


def _layer_types(model: PreTrainedModel) -> list[str]:
    return list(getattr(model.config.get_text_config(), "layer_types", None) or [])


def _has_recurrent_state(model: PreTrainedModel) -> bool:
    types = _layer_types(model)
    if types:  # the class says what some of its models are, the layers what this one is
        return not _RECURRENT_KINDS.isdisjoint(types)
    return bool(getattr(model, "_is_stateful", False))


def _special_attention(model: PreTrainedModel) -> str | None:
    """Return why layers that attend to other tokens than all or the last ones cannot stream."""
    from streamingllm.integration.indexed_layers import indexers

    for kind in _layer_types(model):
        if kind == "indexed_attention" and indexers(model.get_decoder()):
            continue
        for part, reason in _SPECIAL_KINDS.items():
            if part in kind:
                return reason
    return None


def _uses_attention_interface(model: PreTrainedModel) -> bool:
    return hasattr(inspect.getmodule(type(model.get_decoder())), "ALL_ATTENTION_FUNCTIONS")


def _position_table(model: PreTrainedModel) -> tuple[str, bool] | None:
    """Return the name of a decoder's table of positions, and whether it holds sines.

    Tables of other parts, such as a vision tower, place what is no token of the stream.
    """
    found = model.get_decoder()
    decoder = found if hasattr(found, "config") else model  # in some it is the head
    families = {decoder.config.model_type, decoder.config.get_text_config().model_type}
    towers = [
        part
        for part in decoder.modules()
        if getattr(getattr(part, "config", None), "model_type", None) not in (None, *families)
    ]
    parts = set(decoder.modules()).difference(*(tower.modules() for tower in towers))
    name: str
    for name, module in model.named_modules():
        is_table = name.rsplit(".", 1)[-1] in _POSITION_TABLES and module in parts
        if is_table and isinstance(module, nn.Embedding):
            return name, "Sinusoidal" in type(module).__name__
    return None
