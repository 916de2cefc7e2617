"""The memory of an engine: rings for so many streams, allocated at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from transformers import PreTrainedModel

from streamingllm.attention.step_plan import RingBuffers
from streamingllm.cache.ring import RingLayer
from streamingllm.cache.stream_positions import StreamPositions
from streamingllm.config import StreamConfig
from streamingllm.errors import ConfigError
from streamingllm.integration.sink_cache import SinkCache
from streamingllm.strategies.base import run_model

_DEFAULT_MAX_STREAMS = 8


class SlotPool:
    """Hold the keys and values of at most `max_streams` streams.

    Each row is a `SinkCache` of batch 1 with a clock of its own; its buffers are views of one
    tensor per layer, in which a decode step finds all streams side by side.

    Args:
        model: what the streams run on.
        config: shared by all of them.
        max_streams: rows; None for as many as the budget allows, or 8 without one.
        memory_budget_bytes: what all rows together may take; None for no bound.

    Attributes:
        bytes_per_stream: 2 x layers x heads x head_dim x (n + m + u) x element size, where u
            entries, `max_rewind_tokens` + 1 or none, are kept aside for going back.

    Raises:
        ConfigError: the budget does not hold one stream, or the machine has no such memory.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        config: StreamConfig,
        *,
        max_streams: int | None = None,
        memory_budget_bytes: int | None = None,
    ) -> None:
        whole = _new_cache(model, config)
        # One pass shows what each layer of this model keeps, whatever its family.
        first = torch.zeros(1, 1, dtype=torch.int64, device=model.device)
        run_model(model, first, "last", cache=whole)
        self.bytes_per_stream = whole.nbytes + whole.rewind_nbytes
        num_rows = _affordable(max_streams, memory_budget_bytes, self.bytes_per_stream)
        self._allocate(whole, num_rows)
        self._whole = whole
        self._rows = [self._view(model, config, row) for row in range(num_rows)]
        self._free = list(reversed(range(num_rows)))

    @property
    def whole(self) -> SinkCache:
        """All rows as one cache, whose clock means nothing."""
        return self._whole

    @property
    def buffers(self) -> Sequence[RingBuffers]:
        """Each layer's tensors, [rows, ...], as a decode step takes them."""
        return self._whole.ring_buffers

    @property
    def num_rows(self) -> int:
        """Streams that fit."""
        return len(self._rows)

    @property
    def num_free(self) -> int:
        """Rows that nobody has."""
        return len(self._free)

    @property
    def nbytes(self) -> int:
        """Bytes of all rows, free or not."""
        return self.num_rows * self.bytes_per_stream

    def cache(self, row: int) -> SinkCache:
        """Return a row's cache."""
        return self._rows[row]

    def take(self) -> int | None:
        """Return an empty row that now belongs to the caller, or None if all are taken."""
        if not self._free:
            return None
        row = self._free.pop()
        self._rows[row].positions = StreamPositions()
        return row

    def give_back(self, row: int, *, wipe: bool) -> None:
        """Free a row; `wipe` it if what it holds could be more than stale numbers."""
        for layer in _layers(self._rows[row]) if wipe else ():
            for buffer in layer.buffers.values():
                buffer.zero_()
        self._free.append(row)

    def copy(self, source: int, target: int) -> None:
        """Make a row what another is."""
        for old, new in zip(_layers(self._rows[source]), _layers(self._rows[target]), strict=True):
            for name, buffer in new.buffers.items():
                buffer.copy_(old.buffers[name])
        self._rows[target].positions = self._rows[source].positions.copy()

    def close(self) -> None:
        """Free the memory and let go of the model."""
        for cache in (self._whole, *self._rows):
            cache.reset()
            cache.disable()

    @torch.inference_mode(False)  # so that they can be written in and out of inference mode
    def _allocate(self, whole: SinkCache, num_rows: int) -> None:
        try:
            for layer in _layers(whole):
                layer.buffers = {
                    name: buffer.new_zeros((num_rows, *buffer.shape[1:]))
                    for name, buffer in layer.buffers.items()
                }
        except RuntimeError as error:
            raise ConfigError(
                f"max_streams={num_rows}: takes {num_rows * self.bytes_per_stream:,} bytes, more "
                f"than {whole.attachment.model.device} has; must be lower"
            ) from error

    def _view(self, model: PreTrainedModel, config: StreamConfig, row: int) -> SinkCache:
        cache = _new_cache(model, config)
        for layer, whole in zip(_layers(cache), _layers(self._whole), strict=True):
            layer.buffers = {name: b[row : row + 1] for name, b in whole.buffers.items()}
        return cache


def _new_cache(model: PreTrainedModel, config: StreamConfig) -> SinkCache:
    return SinkCache(
        model,
        config.num_sink_tokens,
        config.window_size,
        sink_positions=config.sink_positions,
        max_rewind_tokens=config.max_rewind_tokens,
        quantize_cache=config.quantize_cache,
    )


def _layers(cache: SinkCache) -> Iterator[RingLayer]:
    for layer in cache.layers:
        assert isinstance(layer, RingLayer)
        yield layer


def _affordable(
    max_streams: int | None, memory_budget_bytes: int | None, bytes_per_stream: int
) -> int:
    """Return how many streams there may be."""
    if max_streams is not None and max_streams < 1:
        raise ConfigError(f"max_streams={max_streams}: must be a whole number >= 1")
    if memory_budget_bytes is None:
        return max_streams or _DEFAULT_MAX_STREAMS
    fitting = memory_budget_bytes // bytes_per_stream
    if fitting < 1:
        raise ConfigError(
            f"memory_budget_bytes={memory_budget_bytes}: must be at least {bytes_per_stream}, "
            "what one stream takes; a smaller window_size takes less"
        )
    return fitting if max_streams is None else min(fitting, max_streams)
