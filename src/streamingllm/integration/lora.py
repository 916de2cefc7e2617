"""Low-rank adapters of linear layers, active in the passes of one stream and in no other.

A hook of each adapted layer looks up the active adapter in a context variable, which each thread
sets for the length of a pass. The weights of the model are never changed, so packed layers take
adapters too, and streams with different adapters share one model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from streamingllm.errors import InputError, SnapshotError

_active: ContextVar[LoraAdapter | None] = ContextVar("active_adapter", default=None)


@dataclass(frozen=True)
class LowRank:
    """Hold what an adapter adds to one layer: x down^T up^T.

    Args:
        down: [rank, in_features].
        up: [out_features, rank], with the scaling of the adapter.
    """

    down: Tensor
    up: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Return what is added to the layer's output for activations [..., in_features]."""
        return F.linear(F.linear(x, self.down.to(x.dtype)), self.up.to(x.dtype))


@dataclass(eq=False)
class LoraAdapter:
    """Hold an adapter of one model; `LanguageModel.load_adapter` makes it.

    Args:
        name: for people to read.
        fingerprint: of its files; caches name it, so that none is used with other weights.
        model: whose layers have its hooks.
        layers: what it adds, by layer.
    """

    name: str
    fingerprint: str
    model: nn.Module
    layers: Mapping[nn.Module, LowRank] = field(repr=False)
    _hooks: list[RemovableHandle] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        self._hooks = [layer.register_forward_hook(self._add) for layer in self.layers]

    @property
    def nbytes(self) -> int:
        """Bytes of its matrices."""
        return sum(low.down.nbytes + low.up.nbytes for low in self.layers.values())

    @property
    def is_loaded(self) -> bool:
        """Tell whether the model has its hooks."""
        return bool(self._hooks)

    def unload(self) -> None:
        """Take its hooks off the model; its streams refuse to go on then."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def _add(self, layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor | None:
        return output + self.layers[layer](inputs[0]) if _active.get() is self else None


def active_adapter() -> LoraAdapter | None:
    """Return the adapter of this thread's pass; None for the model's own weights."""
    return _active.get()


@contextmanager
def using_adapter(adapter: LoraAdapter | None) -> Iterator[None]:
    """Let layers of its model add what `adapter` holds, in this thread; None for nothing."""
    token = _active.set(adapter)
    try:
        yield
    finally:
        _active.reset(token)


def check_adapter(adapter: LoraAdapter | None, model: nn.Module) -> None:
    """Refuse an adapter that was loaded for another model, or unloaded.

    Raises:
        InputError: it was.
    """
    if adapter is None:
        return
    if adapter.model is not model:
        raise InputError(
            f"adapter={adapter.name!r} was loaded for another model; load it by this model's "
            "load_adapter"
        )
    if not adapter.is_loaded:
        raise InputError(f"adapter={adapter.name!r} has been unloaded; load it again")


def check_same_adapter(subject: str, made_with: str | None, wanted: str | None) -> None:
    """Refuse a cache that other weights have filled.

    Args:
        subject: the cache, for people.
        made_with: fingerprint of its adapter; None for the model's own weights.
        wanted: fingerprint of the adapter that is to go on with it.

    Raises:
        SnapshotError: they differ.
    """
    if made_with != wanted:
        raise SnapshotError(
            f"{subject}: was made with adapter={made_with!r} and cannot go on with "
            f"adapter={wanted!r}; pass the adapter that it was made with"
        )


def fingerprint_of(adapter: LoraAdapter | None) -> str | None:
    """Return what a cache names its adapter by; None for the model's own weights."""
    return None if adapter is None else adapter.fingerprint
