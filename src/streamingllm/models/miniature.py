"""A small model with the attention of a large one, made from a configuration alone.

How a family encodes positions, and whether it can stream, depends on its code and on its heads, not
on how wide all else is. So a copy of the configuration gets a narrow hidden state, narrow
feed-forward layers and a small vocabulary. Heads, windows and scaling rules stay. The structure of
the whole model on the meta device, which holds no numbers, tells whether only that has changed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from streamingllm.models.decoder_class import build_decoder

_WIDTH, _FEED_FORWARD, _VOCABULARY, _LAYERS = 64, 32, 64, 2
_FEED_FORWARD_NAMES = ("ffn_dim", "ffn_hidden_size", "n_inner")
_WITH_STATE = {"linear_attention", "conv", "hybrid", "hybrid_sliding"}
_IGNORED = ("layer_idx", "training")
_Made = TypeVar("_Made")
_Value = int | float | str | None
_log = logging.getLogger("streamingllm")


@dataclass(frozen=True)
class Miniature:
    """Hold a small model and say what it stands for.

    Args:
        model: with random weights, in evaluation mode.
        num_parameters: of the whole model, tied ones counted once.
        layers_each: layers of the whole model for each of the small one, all of one kind if > 1.
    """

    model: PreTrainedModel
    num_parameters: int
    layers_each: float


def make_miniature(
    config: PreTrainedConfig, dtype: torch.dtype, *, all_layers: bool = False
) -> Miniature:
    """Return a small model whose layers do what those of the configured model do.

    Args:
        config: of a causal language model; it stays as it is.
        dtype: of the small model.
        all_layers: keep all of them, also if they are of one kind.
    """
    with torch.device("meta"):
        whole = build_decoder(config, dtype)
    num_layers = _num_layers(config)
    kinds = {repr(kind) for kind in _layer_kinds(whole, num_layers)}
    # Recurrent states are as wide as the hidden state in some families.
    narrow = () if _has_states(config) else (_narrow,)
    for shrink in (*narrow, _narrow_feed_forward, _unchanged):
        small = _attempt(shrink, config)
        if small is None:
            continue
        if len(kinds) == 1 and not all_layers:
            _keep_layers(small, num_layers)
        model = _attempt(lambda c: _random_model(c, dtype), small)
        if model is not None and (shrink is _unchanged or _same_attention(whole, model)):
            break
    else:
        model = _random_model(config, dtype)
    return Miniature(model, whole.num_parameters(), num_layers / _num_layers(model.config))


def _num_layers(config: PreTrainedConfig) -> int:
    return int(getattr(config.get_text_config(), "num_hidden_layers", 1))


def _has_states(config: PreTrainedConfig) -> bool:
    types = getattr(config.get_text_config(), "layer_types", None) or []
    return not _WITH_STATE.isdisjoint(types)


def _attempt(make: Callable[[PreTrainedConfig], _Made], config: PreTrainedConfig) -> _Made | None:
    """Return what `make` makes, or None: configurations check themselves in ways of their own."""
    try:
        return make(config)
    except Exception as error:
        _log.debug("%s: %s fails: %s", config.model_type, make, error)
        return None


def _random_model(config: PreTrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers stay as they are
        model = build_decoder(config, dtype)
    model.eval().requires_grad_(False)
    return model


def _narrow(config: PreTrainedConfig) -> PreTrainedConfig:
    """Return a copy with a narrow hidden state, the size of heads written out."""
    small = _narrow_feed_forward(config)
    text = small.get_text_config()
    heads = text.num_attention_heads
    text.head_dim = getattr(text, "head_dim", None) or text.hidden_size // heads
    text.hidden_size = min(text.hidden_size, -(-_WIDTH // heads) * heads)
    return small


def _narrow_feed_forward(config: PreTrainedConfig) -> PreTrainedConfig:
    """Return a copy with narrow feed-forward layers and a small vocabulary."""
    small = deepcopy(config)
    text = small.get_text_config()
    for name, value in text.to_dict().items():
        if "intermediate_size" in name or name in _FEED_FORWARD_NAMES:
            narrow = [_FEED_FORWARD] * len(value) if isinstance(value, list) else _FEED_FORWARD
            setattr(text, name, narrow if value else value)
        elif "vocab_size" in name and value:
            setattr(text, name, min(value, _VOCABULARY))
    text.pad_token_id = None  # it may be past the end of the vocabulary
    return small


def _unchanged(config: PreTrainedConfig) -> PreTrainedConfig:
    return deepcopy(config)


def _keep_layers(config: PreTrainedConfig, num_layers: int) -> None:
    """Cut a configuration whose layers are of one kind down to a few."""
    text = config.get_text_config()
    for name, value in vars(text).items():
        if isinstance(value, list) and len(value) == num_layers:
            setattr(text, name, value[:_LAYERS])
    text.num_hidden_layers = min(num_layers, _LAYERS)


def _layer_kinds(model: PreTrainedModel, num_layers: int) -> Iterator[object]:
    """Yield what each layer is made of; nothing if the layers are not found."""
    for module in model.get_decoder().modules():
        if isinstance(module, nn.ModuleList) and len(module) == num_layers:
            for layer in module:
                yield [(name, _facts(part)) for name, part in layer.named_modules()]
            return


def _facts(module: nn.Module) -> dict[str, _Value]:
    """Return a module's class, its simple attributes and the sizes of its tensors."""
    simple = {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, int | float | str | None) and name not in _IGNORED and name[0] != "_"
    }
    sizes = {
        f"{name} {axis}": size
        for name, tensor in {**module._parameters, **module._buffers}.items()
        for axis, size in enumerate(() if tensor is None else tensor.shape)
    }
    return {"class": type(module).__qualname__, **simple, **sizes}


def _same_attention(whole: PreTrainedModel, small: PreTrainedModel) -> bool:
    """Tell whether modules differ only in numbers that were changed on purpose."""
    allowed = _changes(whole.config.get_text_config(), small.config.get_text_config())
    parts = dict(whole.get_decoder().named_modules())
    for name, module in small.get_decoder().named_modules():
        if name not in parts:
            return False
        if isinstance(module, nn.Embedding):
            continue  # some scale by the width of the hidden state
        before, after = _facts(parts[name]), _facts(module)
        if before.keys() != after.keys():
            return False
        pairs = {(before[key], after[key]) for key in before if before[key] != after[key]}
        if not pairs <= allowed:
            return False
    return True


def _changes(before: PreTrainedConfig, after: PreTrainedConfig) -> set[tuple[Any, Any]]:
    """Return the pairs of old and new numbers, and twice them: gate and up share a matrix."""
    old, new = before.to_dict(), after.to_dict()
    pairs = {
        (old[name], new[name])
        for name in old.keys() & new.keys()
        if isinstance(old[name], int) and old[name] != new[name]
    }
    doubled = {(2 * a, 2 * b) for a, b in pairs if isinstance(b, int)}
    return pairs | doubled
