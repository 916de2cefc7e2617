"""The memory of an engine: one slot of keys and values for each stream, allocated at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from transformers import PreTrainedModel

from streamingllm.attention.step_plan import RingBuffers
from streamingllm.cache.state import CacheState
from streamingllm.checks import check_integer
from streamingllm.config import StreamConfig
from streamingllm.errors import ConfigError, InputError
from streamingllm.inputs import sink_token_rows, with_sink_token
from streamingllm.integration.sink_cache import SinkCache
from streamingllm.strategies.base import run_model

_DEFAULT_MAX_STREAMS = 8


class Slot:
    """A stream's place in the pool.

    Args:
        pool: that the slot belongs to.
        index: row of the pool's buffers.
        cache: of batch 1, over views of that row.
    """

    def __init__(self, pool: SlotPool, index: int, cache: SinkCache) -> None:
        self.pool = pool
        self.index = index
        self.cache = cache

    @property
    def num_cached_tokens(self) -> int:
        """Tokens of the stream that its last query saw."""
        return max(0, self.cache.num_cached_tokens - self.pool.num_hidden)

    @property
    def max_rewind_now(self) -> int:
        """Tokens of the stream that can be taken back now."""
        fed = self.cache.num_seen_tokens - self.pool.num_hidden
        return min(fed, self.cache.max_rewind_now[0])

    def close(self, *, wipe: bool = False) -> None:
        """Give the slot back to the pool.

        Args:
            wipe: set its entries to zero. A failed pass may have left numbers that are not finite,
                which no mask hides. The entries of an erased text still encode it.
        """
        self.pool.take_back(self, wipe=wipe)

    def copy_from(self, other: Slot) -> None:
        """Copy the state of another slot of the same layout.

        Raises:
            InputError: it has other sinks or another window.
        """
        self.cache.import_state(other.cache.export_state())

    def export_state(self) -> CacheState:
        """Return the state on the host, in tensors of its own."""
        return self.cache.export_state().cloned("cpu")

    def import_state(self, state: CacheState) -> None:
        """Write a state into the slot, in place: decode steps go on with the same buffers.

        Raises:
            InputError: it has other sinks, another window or another quantisation.
        """
        self.cache.import_state(state)


class SlotPool:
    """Hold the keys and values of at most `max_streams` streams.

    Every slot has `config.cache_size` entries per layer. A stream with a pinned prefix of n tokens
    takes n of them for its sinks and the rest for its window. It steps together with streams whose
    prefixes have other lengths. A sink token that the model was trained with is in each slot from
    the start, in an entry more, and in no count of tokens.

    Args:
        model: that the streams run on.
        config: of all streams; `num_sink_tokens` is the shortest prefix.
        max_streams: slots; None for the number that the budget allows, or 8 without one.
        memory_budget_bytes: upper bound on the bytes of all slots; None for none.
        max_pinned_tokens: longest pinned prefix; None for `config.num_sink_tokens`. A longer one
            takes more memory where the ring is quantised, because sinks are exact. It does so too
            where a layer's own window would no longer fit next to it.

    Attributes:
        num_hidden: entries of a slot's sink token, 0 or 1.
        bytes_per_stream: bytes of one slot, the entries for `rewind` included.

    Raises:
        ConfigError: the budget does not hold one stream, or the machine lacks the memory.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        config: StreamConfig,
        *,
        max_streams: int | None = None,
        memory_budget_bytes: int | None = None,
        max_pinned_tokens: int | None = None,
    ) -> None:
        self.max_pinned_tokens = _longest_prefix(config, max_pinned_tokens)
        self.config = with_sink_token(config, model)
        self.num_hidden = self.config.num_sink_tokens - config.num_sink_tokens
        self._model = model
        self._whole = SinkCache.of(model, self.config)
        # One pass shows what each layer of this model keeps, whatever its family.
        first = torch.zeros(1, 1, dtype=torch.int64, device=model.device)
        run_model(model, first, "last", cache=self._whole)
        self._widen()
        self.bytes_per_stream = self._whole.nbytes + self._whole.rewind_nbytes
        self.num_slots = _affordable(max_streams, memory_budget_bytes, self.bytes_per_stream)
        self._allocate()
        self._free = list(reversed(range(self.num_slots)))

    @property
    def whole(self) -> SinkCache:
        """All slots as one cache, whose positions mean nothing."""
        return self._whole

    @property
    def buffers(self) -> Sequence[RingBuffers]:
        """Each layer's tensors, [slots, ...], as a decode step takes them."""
        return self._whole.ring_buffers

    @property
    def num_free(self) -> int:
        """Slots without a stream."""
        return len(self._free)

    @property
    def nbytes(self) -> int:
        """Bytes of all slots, free or not."""
        return self.num_slots * self.bytes_per_stream

    def open(self, num_pinned_tokens: int = 0) -> Slot | None:
        """Return an empty slot for a stream with a pinned prefix; None if all are taken.

        Raises:
            InputError: the prefix is longer than `max_pinned_tokens`.
        """
        self.check_pinned(num_pinned_tokens)
        if not self._free:
            return None
        index = self._free.pop()
        cache = SinkCache.of(self._model, self.config_with(num_pinned_tokens))
        for layer, whole in zip(cache.stores, self._whole.stores, strict=True):
            layer.buffers = {name: b[index : index + 1] for name, b in whole.buffers.items()}
        slot = Slot(self, index, cache)
        if (first := sink_token_rows(self._model, 1)) is not None:
            try:
                run_model(self._model, first, "last", cache=cache)
            except BaseException:
                slot.close(wipe=True)
                raise
        return slot

    def check_pinned(self, num_pinned_tokens: int) -> None:
        """Refuse a pinned prefix that is too long.

        Raises:
            InputError: it is longer than `max_pinned_tokens`.
        """
        if num_pinned_tokens > self.max_pinned_tokens:
            raise InputError(
                f"pinned: has {num_pinned_tokens} tokens, more than max_pinned_tokens="
                f"{self.max_pinned_tokens}; shorten it or make the engine with a greater one"
            )

    def config_with(self, num_pinned_tokens: int) -> StreamConfig:
        """Return the config of a stream with that prefix: the same entries, split otherwise."""
        n = max(self.config.num_sink_tokens, num_pinned_tokens + self.num_hidden)
        if n == self.config.num_sink_tokens:
            return self.config
        window_size = self.config.cache_size - n
        return replace(self.config, num_sink_tokens=n, window_size=window_size, sink_positions=None)

    def take_back(self, slot: Slot, *, wipe: bool) -> None:
        """Free a slot; see `Slot.close`."""
        for layer in slot.cache.stores if wipe else ():
            for buffer in layer.buffers.values():
                buffer.zero_()
        slot.cache.disable()
        self._free.append(slot.index)

    def close(self) -> None:
        """Free the memory and let go of the model."""
        self._whole.reset()
        self._whole.disable()

    def _widen(self) -> None:
        """Give each layer of the first stream the entries that its longest prefix needs."""
        longest = SinkCache.of(self._model, self.config_with(self.max_pinned_tokens))
        with longest:
            for layer, other in zip(self._whole.rings, longest.rings, strict=True):
                layer.widen(other.geometry)

    @torch.inference_mode(False)  # so that they can be written in and out of inference mode
    def _allocate(self) -> None:
        try:
            for layer in self._whole.stores:
                layer.buffers = {
                    name: buffer.new_zeros((self.num_slots, *buffer.shape[1:]))
                    for name, buffer in layer.buffers.items()
                }
        except RuntimeError as error:
            raise ConfigError(
                f"max_streams={self.num_slots} takes {self.nbytes:,} bytes, more than "
                f"{self._model.device} has; choose a lower number"
            ) from error


def _longest_prefix(config: StreamConfig, max_pinned_tokens: int | None) -> int:
    if max_pinned_tokens is None:
        return config.num_sink_tokens
    check_integer("max_pinned_tokens", max_pinned_tokens, 0)
    if max_pinned_tokens >= config.cache_size:
        raise ConfigError(
            f"max_pinned_tokens={max_pinned_tokens} leaves no entry of cache_size="
            f"{config.cache_size} for the window; choose a lower number"
        )
    return max(config.num_sink_tokens, max_pinned_tokens)


def _affordable(
    max_streams: int | None, memory_budget_bytes: int | None, bytes_per_stream: int
) -> int:
    """Return how many streams there may be."""
    if max_streams is not None:
        check_integer("max_streams", max_streams, 1)
    if memory_budget_bytes is None:
        return max_streams or _DEFAULT_MAX_STREAMS
    fitting = memory_budget_bytes // bytes_per_stream
    if fitting < 1:
        raise ConfigError(
            f"memory_budget_bytes={memory_budget_bytes} is less than the {bytes_per_stream} bytes "
            "of one stream; raise it or choose a smaller window_size"
        )
    return fitting if max_streams is None else min(fitting, max_streams)
