"""The cache that transformers sees: sinks and a window for every layer, and the stream's clock."""

from __future__ import annotations

import weakref
from dataclasses import replace
from functools import cached_property
from types import TracebackType
from typing import Any, NoReturn

import torch
from torch import Tensor
from transformers import Cache, PreTrainedModel

from streamingllm.attention.forward_plan import ForwardPlan
from streamingllm.attention.plan import Chunk, WindowPlan
from streamingllm.attention.step_plan import RingBuffers
from streamingllm.cache.quantized_ring import QuantizedRingLayer
from streamingllm.cache.ring import RingGeometry, RingLayer, layer_geometries
from streamingllm.cache.slot_copies import ChunkCopies
from streamingllm.cache.stream_positions import StreamPositions
from streamingllm.config import StreamConfig
from streamingllm.errors import InputError, RewindError, UnsupportedFeatureError
from streamingllm.integration.attach import Attachment, attachment_of
from streamingllm.positions.base import PositionEncoding


class SinkCache(Cache):
    """Keep the first n tokens and the last m of each stream, for any transformers decoder.

    Give it to `model.generate(past_key_values=cache)` or to `model(...)`; nothing else is called.

    Args:
        model: the model that will use the cache.
        num_sink_tokens, window_size, sink_positions, max_rewind_tokens, quantize_cache: see
            `StreamConfig`.

    Raises:
        ConfigError: a number is out of range.
        UnsupportedModelError: the model cannot stream; the message says why.

    Source: Xiao et al. (arXiv 2309.17453), section 3.2. Deviation: keys keep the rotation of their
    stream position, and queries turn for the sinks, which gives the same scores.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        num_sink_tokens: int = 4,
        window_size: int = 1020,
        *,
        sink_positions: tuple[int, ...] | None = None,
        max_rewind_tokens: int = 64,
        quantize_cache: str = "none",
    ) -> None:
        config = StreamConfig(
            num_sink_tokens=num_sink_tokens,
            window_size=window_size,
            sink_positions=sink_positions,
            max_rewind_tokens=max_rewind_tokens,
            quantize_cache=quantize_cache,
        )
        self._setup(config, attachment_of(model))

    def _setup(self, config: StreamConfig, attachment: Attachment) -> None:
        self.config = config
        self.attachment = attachment
        self._encodings = attachment.encodings(config.cache_size)
        # One more than may be taken back: going on from there needs the logits of the token before.
        self._undo_size = config.max_rewind_tokens + 1 if config.max_rewind_tokens else 0
        limits = [e.position_limit for e in self._encodings if e.position_limit is not None]
        self._position_limit = min(limits, default=None)
        self._running: Chunk | None = None
        self.positions = StreamPositions()
        attachment.acquire()
        self._release = weakref.finalize(self, attachment.release)
        geometries = layer_geometries(config, attachment.windows, self._undo_size)
        pairs = zip(geometries, self._encodings, strict=True)
        kind = QuantizedRingLayer if config.quantize_cache == "int8" else RingLayer
        self._rings = [kind(geometry, encoding) for geometry, encoding in pairs]
        Cache.__init__(self, layers=[*self._rings])

    @property
    def cache_size(self) -> int:
        """Entries held per layer and stream: n + m."""
        return self.config.cache_size

    @property
    def num_seen_tokens(self) -> int:
        """Tokens that the longest stream of the batch has seen."""
        return max(self.positions.seen)

    @property
    def num_seen_tokens_per_stream(self) -> Tensor:
        """Tokens that each stream has seen, int64, [batch]."""
        return torch.tensor(self.positions.per_stream(abs(self.batch_size)))

    @property
    def num_cached_tokens(self) -> int:
        """Tokens that the next query of the longest stream can see, itself not counted."""
        seen, m = self.num_seen_tokens, self.config.window_size
        return min(seen, m) + sum(p < seen - m for p in self._sink_positions())

    @property
    def nbytes(self) -> int:
        """Bytes of all keys and values: 2 x layers x heads x head_dim x (n + m) x element size."""
        return sum(layer.nbytes for layer in self._rings)

    @property
    def rewind_nbytes(self) -> int:
        """Bytes held beside the cache so that streams can be rewound after eviction."""
        return sum(layer.rewind_nbytes for layer in self._rings)

    @property
    def batch_size(self) -> int:
        """Streams in the batch, -1 before the first pass."""
        return self._rings[0].k_cache.shape[0] if self.is_initialized else -1

    @property
    def is_initialized(self) -> bool:
        """Whether a pass has been made since the start or the last reset."""
        return self._rings[0].is_initialized

    @cached_property
    def _smallest_window(self) -> int:
        return min(layer.geometry.window_size for layer in self._rings)

    def _sink_positions(self) -> tuple[int, ...]:
        return self.config.sink_positions or tuple(range(self.config.num_sink_tokens))

    # One forward pass, called by the attachment's hooks.

    def begin(
        self, batch_size: int, num_tokens: int, valid: Tensor | None, device: torch.device
    ) -> ForwardPlan:
        """Plan a pass of `num_tokens` columns; `valid` marks those that are not padding.

        Raises:
            InputError: the cache is disabled, or the batch has another size than before.
        """
        if not self._release.alive:
            raise InputError("this SinkCache was disabled: make a new SinkCache(model)")
        if self.is_initialized and batch_size != self.batch_size:
            raise InputError(
                f"input_ids has {batch_size} rows: this cache holds {self.batch_size} streams"
            )
        chunk = self._rebased(self.positions.chunk(batch_size, num_tokens, valid, device))
        plans: dict[RingGeometry, tuple[WindowPlan, ChunkCopies]] = {}
        for layer in self._rings:
            if layer.geometry not in plans:
                plans[layer.geometry] = self._plan_geometry(chunk, layer.geometry)
            layer.copies = plans[layer.geometry][1]
        self._running = chunk
        windows = tuple(plans[layer.geometry][0] for layer in self._rings)
        return ForwardPlan(chunk, windows, self._encodings)

    def end(self, succeeded: bool) -> None:
        """Write the tokens of the running pass, or forget them."""
        assert self._running is not None
        chunk, self._running = self._running, None
        for layer in self._rings:
            layer.commit() if succeeded else layer.rollback()
        if succeeded:
            self.positions.advance(chunk, self._smallest_window + self._undo_size)

    def _plan_geometry(
        self, chunk: Chunk, geometry: RingGeometry
    ) -> tuple[WindowPlan, ChunkCopies]:
        sinks = self._sink_positions() if geometry.num_sink_tokens else ()
        positions = torch.tensor(sinks, dtype=torch.int64, device=chunk.positions.device)
        plan = WindowPlan(chunk, positions, geometry.window_size)
        return plan, ChunkCopies(plan, geometry.undo_size)

    def _rebased(self, chunk: Chunk) -> Chunk:
        """Count from a new origin where an encoding has a limit that this pass would cross."""
        limit = self._position_limit
        if limit is None or int(chunk.model_positions.max()) < limit:
            return chunk
        amount = -(chunk.start - chunk.origin - self.config.cache_size).clamp(min=0)
        if self.is_initialized:
            for layer in self._rings:
                layer.shift_stored_keys(amount.expand(self.batch_size))
        self.positions.origin = chunk.origin - amount
        return replace(chunk, origin=self.positions.origin)

    # A decode step writes the rings by itself.

    @property
    def geometries(self) -> tuple[tuple[tuple[int, ...], int], ...]:
        """Sink positions and window size of each layer."""
        sinks = self._sink_positions()
        layers = [layer.geometry for layer in self._rings]
        return tuple((sinks if g.num_sink_tokens else (), g.window_size) for g in layers)

    @property
    def encodings(self) -> tuple[PositionEncoding, ...]:
        """The position encoding of each layer."""
        return self._encodings

    @property
    def ring_buffers(self) -> list[RingBuffers]:
        """Each layer's tensors."""
        return [layer.ring_buffers for layer in self._rings]

    @property
    def has_all_sinks(self) -> bool:
        """Whether every stream has read its sinks, so that what comes belongs to the window."""
        last = max(self._sink_positions(), default=-1)
        return self.is_initialized and min(self.positions.seen) > last

    def count_step(self) -> None:
        """Count the token that a decode step has written for every stream."""
        self.positions.advance_one(self._smallest_window + self._undo_size)

    # What users and `generate` call between passes.

    def rewind(self, num_tokens: int | Tensor) -> None:
        """Take the last tokens off each stream, as if they had never been fed.

        Args:
            num_tokens: how many; an int64 tensor [batch] for a number per stream.

        Raises:
            RewindError: it is negative, more than was fed, or more than is remembered.
        """
        seen = self.num_seen_tokens_per_stream
        back = torch.as_tensor(num_tokens, dtype=torch.int64, device="cpu").expand_as(seen)
        self.positions.rewind(back.tolist(), self._smallest_window)
        for layer in self._rings if self.is_initialized else ():
            device = layer.k_cache.device
            layer.rewind(seen.to(device), back.to(device))

    @property
    def max_rewind_now(self) -> Tensor:
        """Tokens that each stream can be rewound by now, int64, [batch]."""
        return torch.tensor(self.positions.reach(abs(self.batch_size), self._smallest_window))

    def __deepcopy__(self, memo: dict[int, Any]) -> SinkCache:
        return self.clone()

    def __reduce__(self) -> NoReturn:
        raise UnsupportedFeatureError(
            "a SinkCache cannot be pickled: save a Stream with snapshot(path)"
        )

    def clone(self) -> SinkCache:
        """Return an independent copy; it costs `nbytes` + `rewind_nbytes`."""
        other = SinkCache.__new__(SinkCache)
        other._setup(self.config, self.attachment)
        other.load_state(self.state(), self.positions.copy())
        return other

    def state(self) -> dict[str, list[Tensor]]:
        """Return all buffers by name, one per layer."""
        if not self.is_initialized:
            return {}
        names = self._rings[0].buffers
        return {name: [layer.buffers[name] for layer in self._rings] for name in names}

    @torch.inference_mode(False)  # so that the copies can be written in and out of inference mode
    def load_state(self, state: dict[str, list[Tensor]], positions: StreamPositions) -> None:
        """Copy buffers, as `state` returned them, and take over the positions they belong to."""
        for index, layer in enumerate(self._rings if state else ()):
            layer.buffers = {name: tensors[index].clone() for name, tensors in state.items()}
        self.positions = positions

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

    def get_max_length(self, layer_idx: int | None = None) -> int:
        """Streams have no greatest length."""
        return -1

    def crop(self, tokens_to_remove: int) -> None:
        """Take back `-tokens_to_remove` tokens, as assisted generation asks for.

        Raises:
            RewindError: the number is positive, which once meant a length; see also `rewind`.
        """
        if tokens_to_remove > 0:
            raise RewindError(f"tokens_to_remove={tokens_to_remove}: must be 0 or negative")
        self.rewind(-tokens_to_remove)

    def activate_past_recording(self) -> None:
        """Get ready for assisted generation.

        Raises:
            UnsupportedFeatureError: tokens have been read, which transformers would feed again.
        """
        if self.num_seen_tokens:
            raise UnsupportedFeatureError(
                f"assisted generation: the cache has read {self.num_seen_tokens} tokens and must "
                "be empty; give each turn a new SinkCache and all ids"
            )

    def reset(self) -> None:
        """Forget everything."""
        for layer in self._rings:
            layer.reset()
        self.positions = StreamPositions()

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Reorder streams for beam search."""
        self.batch_select_indices(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep the given streams, int64, [new_batch]."""
        for layer in self._rings:
            layer.select_streams(indices)
        self.positions.select(indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every stream `repeats` times."""
        if self.is_initialized:
            rows = torch.arange(self.batch_size).repeat_interleave(repeats)
            self.batch_select_indices(rows)

    def __repr__(self) -> str:
        config = self.config
        return (
            f"SinkCache(num_sink_tokens={config.num_sink_tokens}, "
            f"window_size={config.window_size}, num_seen_tokens={self.num_seen_tokens})"
        )
