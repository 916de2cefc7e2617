"""Base of baselines that choose which entries of a full cache to evict.

Entries keep the order of the stream. When some are evicted, the keys of the others turn to their
new cache positions. Queries and keys count positions inside the cache, as the sinks do.
"""

from __future__ import annotations

from abc import abstractmethod
from copy import deepcopy
from typing import Self

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from streamingllm.config import StreamConfig
from streamingllm.errors import UnsupportedFeatureError
from streamingllm.integration.attach import attachment_of
from streamingllm.positions.base import PositionEncoding
from streamingllm.positions.none import NoEncoding
from streamingllm.positions.rope import RopeEncoding
from streamingllm.strategies.base import LogitsToKeep, Strategy, run_model
from streamingllm.strategies.dense import refuse_padding

_BLOCKS_PER_WINDOW = 64


class EvictingStrategy(Strategy):
    """Hold at most n + m entries, and evict a few whenever the cache is full.

    A block of m / 64 entries is evicted at once (one, if m is smaller), at the same stream
    positions however the text is fed. Between evictions a query sees up to a block less than n + m.
    """

    def __init__(self, model: PreTrainedModel, config: StreamConfig) -> None:
        self.model = model
        self.config = config
        self.block_size = max(1, config.window_size // _BLOCKS_PER_WINDOW)
        self._cache = DynamicCache(config=model.config)
        self._encodings = self._checked_encodings(model, config)
        self._num_seen_tokens = 0

    @property
    def num_seen_tokens(self) -> int:
        """Tokens fed so far."""
        return self._num_seen_tokens

    @property
    def num_cached_tokens(self) -> int:
        """Entries of a layer."""
        return int(self._cache.get_seq_length())

    @property
    def nbytes(self) -> int:
        """Bytes of the keys and values: those of n + m entries at most."""
        cached = (getattr(x, name, None) for x in self._cache.layers for name in ("keys", "values"))
        return sum(tensor.nbytes for tensor in cached if isinstance(tensor, Tensor))

    def step(self, ids: Tensor, valid: Tensor | None, logits_to_keep: LogitsToKeep) -> Tensor:
        """Feed ids [batch, seq] and return logits."""
        refuse_padding(self.name, valid)
        parts: list[Tensor] = []
        while ids.shape[1]:
            if self.num_cached_tokens == self.config.cache_size:
                self._evict()
            room = self.config.cache_size - self.num_cached_tokens
            now, ids = ids[:, :room], ids[:, room:]
            logits = run_model(self.model, now, logits_to_keep, cache=self._cache)
            self._note(now.shape[1])
            parts = [logits] if logits_to_keep == "last" else [*parts, logits]
        return torch.cat(parts, dim=1)

    def fork(self) -> Self:
        """Return an independent copy."""
        other = type(self)(self.model, self.config)
        other._cache = deepcopy(self._cache)
        other._num_seen_tokens = self._num_seen_tokens
        return other

    @abstractmethod
    def kept_entries(self, keys: Tensor, num_kept: int) -> Tensor:
        """Choose which of a layer's entries stay.

        Args:
            keys: [batch, num_kv_heads, entries, head_dim].
            num_kept: how many; the first n are among them.

        Returns:
            Indices in rising order, int64, [batch, num_kv_heads, num_kept].
        """

    def _note(self, num_tokens: int) -> None:
        """Count tokens that have been fed."""
        self._num_seen_tokens += num_tokens

    def _evict(self) -> None:
        num_kept = self.num_cached_tokens - self.block_size
        for layer, encoding in zip(self._cache.layers, self._encodings, strict=True):
            assert isinstance(layer, DynamicLayer)
            assert layer.keys is not None
            assert layer.values is not None
            kept = self.kept_entries(layer.keys, num_kept)
            keys, values = (_gather(x, kept) for x in (layer.keys, layer.values))
            layer.keys, layer.values = _moved(keys, kept, encoding), values

    def _checked_encodings(
        self, model: PreTrainedModel, config: StreamConfig
    ) -> tuple[PositionEncoding, ...]:
        """Return each layer's position encoding.

        Raises:
            UnsupportedFeatureError: a setting or a layer is of a kind that is not covered.
        """
        if config.sink_positions is not None or config.quantize_cache != "none":
            raise UnsupportedFeatureError(
                f"strategy={self.name!r} has no sink_positions and no quantize_cache; use 'sinks'"
            )
        attachment = attachment_of(model)
        encodings = attachment.encodings(config.cache_size)
        is_covered = all(
            isinstance(each, NoEncoding) or (isinstance(each, RopeEncoding) and not each.in_values)
            for each in encodings
        )
        if not is_covered or any(window is not None for window in attachment.windows):
            raise UnsupportedFeatureError(
                f"strategy={self.name!r}: {model.config.model_type} has other layers than global "
                "ones with rotary positions; use 'sinks'"
            )
        return encodings


def _gather(x: Tensor, kept: Tensor) -> Tensor:
    """Return the kept entries of keys or values [batch, heads, entries, dim]."""
    return x.gather(2, kept[..., None].expand(*kept.shape, x.shape[-1]))


def _moved(keys: Tensor, kept: Tensor, encoding: PositionEncoding) -> Tensor:
    """Turn keys [batch, heads, kept, dim] from the cache positions they had to their new ones."""
    batch, heads, num_kept, _ = keys.shape
    back = torch.arange(num_kept, device=kept.device) - kept
    shift = encoding.shift(back.reshape(batch * heads, num_kept), keys)
    if shift is None:
        return keys
    return shift.keys(keys.reshape(batch * heads, 1, num_kept, -1)).reshape(keys.shape)
