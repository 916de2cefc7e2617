"""Layers of a hybrid model: which attend, which carry a recurrent state, which do both."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import cast

import torch
from torch import nn
from transformers import DynamicCache, PreTrainedModel, cache_utils
from transformers.cache_utils import (
    CacheLayerMixin,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionAndFullAttentionLayer,
    LinearAttentionAndSlidingWindowAttentionLayer,
    LinearAttentionLayer,
)

from streamingllm.cache.ring import RingLayer
from streamingllm.cache.state_layer import NUM_CHECKPOINTS, RingAndStateLayer, StateLayer
from streamingllm.cache.stateless_layer import StatelessLayer
from streamingllm.errors import UnsupportedModelError, first_line
from streamingllm.integration.support import refusal

CacheLayer = RingLayer | StateLayer | StatelessLayer

_WITH_STATE = {"linear_attention", "conv", "hybrid", "hybrid_sliding"}
_ATTENDING = (DynamicLayer, DynamicSlidingWindowLayer)
_BOTH = (LinearAttentionAndFullAttentionLayer, LinearAttentionAndSlidingWindowAttentionLayer)
# transformers has a class for layers without any state since 5.23; before, it counts a state that
# is never written.
_DUMMY = getattr(cache_utils, "DummyLayer", None)
_KNOWN = (*_ATTENDING, *_BOTH, LinearAttentionLayer, _DUMMY)
_STATELESS_TYPES = ("moe", "mlp")


@dataclass(frozen=True)
class HybridLayers:
    """Describe the layers of a model, some of which carry a recurrent state.

    Args:
        num_states: states of each layer; 0 where it has none.
        windows: own window of each layer that attends, by layer; None where it sees everything.
    """

    num_states: tuple[int, ...]
    windows: dict[int, int | None]

    @cached_property
    def attending(self) -> list[int]:
        """Layers that attend, ascending; the rings of a cache are in this order."""
        return sorted(self.windows)

    @property
    def own_windows(self) -> tuple[int | None, ...]:
        """Own windows in the order of rings."""
        return tuple(self.windows[layer] for layer in self.attending)

    def cache_layers(self, rings: list[RingLayer], *, rewinds: bool) -> list[CacheLayer]:
        """Return a cache's layers: rings, states, both in one, or neither.

        Args:
            rings: one for each layer that attends.
            rewinds: whether states have checkpoints.
        """
        ring_of = dict(zip(self.attending, rings, strict=True))
        copies = NUM_CHECKPOINTS if rewinds else 0
        return [
            _layer(ring_of.get(layer), number, copies)
            for layer, number in enumerate(self.num_states)
        ]


def _layer(ring: RingLayer | None, num_states: int, num_checkpoints: int) -> CacheLayer:
    if ring is not None:
        return RingAndStateLayer(ring, num_states, num_checkpoints) if num_states else ring
    if num_states:
        return StateLayer(num_states, num_checkpoints)
    # transformers looks for its own class when it chooses the layer that a mask is made for.
    return StatelessLayer() if _DUMMY is None else cast(StatelessLayer, _DUMMY())


def hybrid_layers(model: PreTrainedModel) -> HybridLayers | None:
    """Return the layers of a model that both attends and carries recurrent states.

    transformers' own cache for the model tells them. None if no layer has such a state, if none
    attends, or if a layer keeps anything else.
    """
    config = model.config.get_text_config()
    types = list(getattr(config, "layer_types", None) or [])
    if not _WITH_STATE.intersection(types):
        return None
    layers = DynamicCache(config=config).layers
    if any(type(layer) not in _KNOWN for layer in layers):
        return None
    window: int | None = getattr(config, "sliding_window", None)
    windows = {
        index: window if "sliding" in kind else None
        for index, (kind, layer) in enumerate(zip(types, layers, strict=True))
        if isinstance(layer, CacheLayerMixin)
    }
    num_states = tuple(
        layer.number_of_states
        if isinstance(layer, LinearAttentionLayer) and kind not in _STATELESS_TYPES
        else 0
        for kind, layer in zip(types, layers, strict=True)
    )
    return HybridLayers(num_states, windows) if windows else None


def check_states(model: PreTrainedModel, decoder: nn.Module) -> None:
    """Refuse a hybrid model that keeps its states elsewhere than in the cache it is given.

    Raises:
        UnsupportedModelError: a layer left its state in itself, or takes no other cache; or the
            model cannot compute one token.
    """
    family, cache = model.config.model_type, DynamicCache(config=model.config)
    token = torch.ones((1, 1), dtype=torch.int64, device=model.device)
    try:
        with torch.no_grad():
            decoder(input_ids=token, past_key_values=cache, use_cache=True)
    except (ValueError, TypeError, AttributeError) as error:
        reason = "it takes no cache except one of its own class"
        raise UnsupportedModelError(refusal(family, reason)) from error
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # such as a router in another dtype
        reason = f"its own pass over one token fails ({first_line(error)})"
        raise UnsupportedModelError(refusal(family, reason)) from error
    types = model.config.get_text_config().layer_types
    for index, (kind, layer) in enumerate(zip(types, cache.layers, strict=True)):
        if kind in _STATELESS_TYPES or not isinstance(layer, LinearAttentionLayer):
            continue
        if not all(layer.has_previous_state.values()):
            reason = f"layer {index} keeps its recurrent state in itself, where streams would mix"
            raise UnsupportedModelError(refusal(family, reason))
