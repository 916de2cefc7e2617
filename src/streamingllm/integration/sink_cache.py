"""SinkCache: the cache that transformers sees."""

from __future__ import annotations

import weakref
from types import TracebackType
from typing import Any, NoReturn

import torch
from torch import Tensor
from transformers import Cache, PreTrainedModel

from streamingllm.attention.forward_plan import ForwardPlan, LayerTurn
from streamingllm.cache.geometry import tokens_taken_back
from streamingllm.cache.recurrent_states import RecurrentStates
from streamingllm.cache.ring_cache import RingCache
from streamingllm.cache.state_layer import StateLayer
from streamingllm.cache.stateful_ring_cache import StatefulRingCache
from streamingllm.config import StreamConfig
from streamingllm.errors import InputError, RewindError, UnsupportedFeatureError
from streamingllm.inputs import HasModel, model_of
from streamingllm.integration.attach import attachment_of


class SinkCache(StatefulRingCache, Cache):
    """Keep the first n tokens and the last m of each stream, for any transformers decoder.

    Give it to `model.generate(past_key_values=cache)` or to `model(...)`; nothing else is called.

    Args:
        model: the model that will use the cache, or what `load_model` returned.
        num_sink_tokens, window_size, sink_positions, max_rewind_tokens, quantize_cache, eviction,
            eviction_grain: see `StreamConfig`.

    Raises:
        ConfigError: a number is out of range.
        UnsupportedModelError: the model cannot stream; the message says why.

    Source: Xiao et al. (arXiv 2309.17453), section 3.2. Deviation: keys keep the rotation of their
    stream position, and queries turn for the sinks, which gives the same scores.
    """

    def __init__(
        self,
        model: PreTrainedModel | HasModel,
        num_sink_tokens: int = 4,
        window_size: int = 1020,
        *,
        sink_positions: tuple[int, ...] | None = None,
        max_rewind_tokens: int = 64,
        quantize_cache: str = "none",
        eviction: str = "token",
        eviction_grain: int = 1,
    ) -> None:
        config = StreamConfig(
            num_sink_tokens=num_sink_tokens,
            window_size=window_size,
            sink_positions=sink_positions,
            max_rewind_tokens=max_rewind_tokens,
            quantize_cache=quantize_cache,
            eviction=eviction,
            eviction_grain=eviction_grain,
        )
        self.attachment = attachment_of(model_of(model))
        encodings = self.attachment.encodings(config.cache_size)
        interval = tokens_taken_back(config)
        # From a checkpoint up to `interval` tokens older than a rewind needs.
        undo_size = interval if self.attachment.hybrid is None else 2 * interval
        RingCache.__init__(self, config, encodings, self.attachment.windows, undo_size)
        self.attachment.acquire()
        self._release = weakref.finalize(self, self.attachment.release)
        Cache.__init__(self, layers=self._make_layers(interval))

    def _make_layers(self, interval: int) -> list[Any]:
        """Return transformers' layers, and keep the states of those that have any."""
        hybrid = self.attachment.hybrid
        if hybrid is None:
            return [*self.rings]
        layers = hybrid.cache_layers(self.rings, rewinds=interval > 0)
        stateful = [layer for layer in layers if isinstance(layer, StateLayer)]
        self.states = RecurrentStates(stateful, interval, self._remembered)
        self.turn = LayerTurn()
        return layers

    @classmethod
    def of(cls, model: PreTrainedModel, config: StreamConfig) -> SinkCache:
        """Return an empty cache for streams of that config."""
        return cls(
            model,
            config.num_sink_tokens,
            config.window_size,
            sink_positions=config.sink_positions,
            max_rewind_tokens=config.max_rewind_tokens,
            quantize_cache=config.quantize_cache,
            eviction=config.eviction,
            eviction_grain=config.eviction_grain,
        )

    def begin(
        self, batch_size: int, num_tokens: int, valid: Tensor | None, device: torch.device
    ) -> ForwardPlan:
        """Plan a pass; see `RingCache.begin`.

        Raises:
            InputError: the cache is disabled, or the batch has another size than before.
        """
        if not self._release.alive:
            raise InputError("this SinkCache was disabled: make a new SinkCache(model)")
        plan = super().begin(batch_size, num_tokens, valid, device)
        return plan.with_readers(self.attachment.readers)

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Return the columns that a layer attends to; it attends next."""
        if self.turn is not None:
            self.turn.number = self.ring_number(layer_idx)
        columns: tuple[Tensor, Tensor] = super().update(
            key_states, value_states, layer_idx, *args, **kwargs
        )
        return columns

    def ring_number(self, layer_idx: int) -> int:
        """Return the number of the ring that holds a layer's keys and values."""
        hybrid = self.attachment.hybrid
        return layer_idx if hybrid is None else hybrid.attending.index(layer_idx)

    def _feed_again(self, ids: list[list[int]]) -> None:
        decoder, longest = self.attachment.decoder, max(map(len, ids))
        device = self.rings[0].k_cache.device
        rows = torch.tensor([[*row, *[0] * (longest - len(row))] for row in ids], device=device)
        lengths = torch.tensor([len(row) for row in ids], device=device)
        mask = (torch.arange(longest, device=device) < lengths[:, None]).long()
        with torch.no_grad():
            decoder(input_ids=rows, attention_mask=mask, past_key_values=self, use_cache=True)

    def clone(self) -> SinkCache:
        """Return an independent copy; it costs `nbytes` + `rewind_nbytes`."""
        other = SinkCache.of(self.attachment.model, self.config)
        other.import_state(self.export_state())
        return other

    def __deepcopy__(self, memo: dict[int, Any]) -> SinkCache:
        return self.clone()

    def __reduce__(self) -> NoReturn:
        raise UnsupportedFeatureError(
            "a SinkCache cannot be pickled: save a Stream with snapshot(path)"
        )

    def disable(self) -> None:
        """Let go of the model; with its last cache it is as it was before the first."""
        self._release()

    def __enter__(self) -> SinkCache:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.disable()

    # transformers' Cache protocol.

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Columns fed so far, padding included; during a pass no more than the cache holds."""
        if self._running is not None:
            return min(self.positions.num_columns, self.cache_size)
        return self.positions.num_columns

    @property
    def batch_size(self) -> int:
        """Streams in the batch; -1 before the first pass, as transformers defines it."""
        return -1 if self.num_streams is None else self.num_streams

    def get_max_length(self, layer_idx: int | None = None) -> int:
        """Streams have no greatest length."""
        return -1

    def crop(self, tokens_to_remove: int) -> None:
        """Take back `-tokens_to_remove` tokens, as assisted generation asks for.

        Raises:
            RewindError: the number is positive, which once meant a length; see also `rewind`.
        """
        if tokens_to_remove > 0:
            raise RewindError(f"tokens_to_remove={tokens_to_remove} is positive; give 0 or less")
        self.rewind(-tokens_to_remove)

    def activate_past_recording(self) -> None:
        """Get ready for assisted generation.

        Raises:
            UnsupportedFeatureError: tokens have been fed, which transformers would feed again.
        """
        if self.num_seen_tokens:
            raise UnsupportedFeatureError(
                f"assisted generation: the cache has seen {self.num_seen_tokens} tokens and must "
                "be empty; give each turn a new SinkCache and all ids"
            )

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Reorder streams for beam search."""
        self.batch_select_indices(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep the given streams, int64, [new_batch]."""
        self.select_streams(indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every stream `repeats` times."""
        if self.num_streams is not None:
            rows = torch.arange(self.num_streams).repeat_interleave(repeats)
            self.batch_select_indices(rows)

    def __repr__(self) -> str:
        config = self.config
        return (
            f"SinkCache(num_sink_tokens={config.num_sink_tokens}, "
            f"window_size={config.window_size}, num_seen_tokens={self.num_seen_tokens})"
        )
