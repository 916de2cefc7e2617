"""State of one stream between two engines: exact, opaque, and checked when it is read."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from streamingllm.cache.snapshot import snapshot_from_bytes, snapshot_to_bytes
from streamingllm.cache.state import CacheState
from streamingllm.config import StreamConfig
from streamingllm.engine.stream import EngineStream
from streamingllm.errors import InputError, SnapshotError
from streamingllm.finish_reason import FinishReason
from streamingllm.integration.lora import check_same_adapter, fingerprint_of
from streamingllm.stream.generation_state import GenerationState

_KIND = "engine-stream"
_TENSORS = ("token_tail", "pending")


@dataclass(frozen=True, eq=False)
class StreamState:
    """Hold all that a stream depends on except the model.

    The next logits of a stream opened with it are bit-identical to those of the exported stream in
    a batch of the same shape. A text that has not ended goes on; its deadline is not kept.

    Args:
        model: fingerprint of the model.
        layout: fields of the engine's configuration that the buffers depend on.
        cache: keys, values and stream positions; None before the first token.
        num_pinned_tokens: length of the pinned prefix.
        num_seen_tokens: tokens that the model has seen.
        num_prompt_tokens: tokens of the last request.
        num_evicted_tokens: tokens that were evicted.
        token_tail: last tokens that the model has seen.
        pending: tokens that the model has not seen.
        turn_starts: stream positions of marked turns that the model has not reached.
        generation: state of the last text, JSON-able; None before the first.
        finish_reason: why it ended; None while it goes on.
        adapter: fingerprint of the adapter; None for the model's own weights.
    """

    model: str
    layout: dict[str, Any]
    cache: CacheState | None = field(repr=False)
    num_pinned_tokens: int
    num_seen_tokens: int
    num_prompt_tokens: int
    num_evicted_tokens: int
    token_tail: tuple[int, ...] = field(repr=False)
    pending: tuple[int, ...] = field(repr=False)
    turn_starts: tuple[int, ...]
    generation: dict[str, Any] | None = field(repr=False)
    finish_reason: FinishReason | None
    adapter: str | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the keys, values and tokens."""
        tokens = 8 * (len(self.token_tail) + len(self.pending))
        return tokens + (0 if self.cache is None else self.cache.nbytes)

    @classmethod
    def of(cls, stream: EngineStream, model: str, config: StreamConfig) -> StreamState:
        """Return a copy of a stream's state.

        Args:
            stream: any that has not finished.
            model: fingerprint of its model.
            config: of its engine.
        """
        cache = stream.cache_state
        if stream.slot is not None and stream.num_seen_tokens:
            cache = stream.slot.export_state()
        return cls(
            model=model,
            layout=layout_of(config),
            cache=cache,
            num_pinned_tokens=stream.num_pinned_tokens,
            num_seen_tokens=stream.num_seen_tokens,
            num_prompt_tokens=stream.num_prompt_tokens,
            num_evicted_tokens=stream.usage.num_evicted_tokens,
            token_tail=tuple(stream.token_tail),
            pending=tuple(stream.pending),
            turn_starts=tuple(stream.turn_starts),
            generation=None if stream.generation is None else stream.generation.to_json(),
            finish_reason=stream.finish_reason,
            adapter=fingerprint_of(stream.adapter),
        )

    def check(self, model: str, config: StreamConfig, adapter: str | None = None) -> None:
        """Refuse an engine that cannot continue the stream.

        Args:
            model: fingerprint of the engine's model.
            config: of the engine.
            adapter: fingerprint of the adapter that is to go on with it.

        Raises:
            SnapshotError: the state belongs to another model or adapter.
            InputError: the engine has another layout.
        """
        if self.model != model:
            raise SnapshotError(
                "state belongs to another model or dtype than this engine's; load the model that "
                "it was exported with"
            )
        check_same_adapter("state", self.adapter, adapter)
        own = layout_of(config)
        for name, value in self.layout.items():
            if own[name] != value:
                raise InputError(
                    f"state has {name}={value} and this engine {name}={own[name]}; use an engine "
                    "of the same layout"
                )

    def restore(self, stream: EngineStream, generation: GenerationState | None) -> None:
        """Put a new stream where the exported one stood.

        Args:
            stream: without a slot; its cache is imported when it has one.
            generation: made of `self.generation` by an input processor.
        """
        stream.num_pinned_tokens = self.num_pinned_tokens
        stream.num_seen_tokens = self.num_seen_tokens
        stream.num_prompt_tokens = self.num_prompt_tokens
        stream.token_tail.extend(self.token_tail)
        stream.pending.extend(self.pending)
        stream.turn_starts.extend(self.turn_starts)
        stream.generation = generation
        stream.finish_reason = self.finish_reason
        stream.cache_state = self.cache

    def to_bytes(self) -> bytes:
        """Return the state as bytes, with a checksum."""
        facts: dict[str, Any] = {
            "kind": _KIND,
            "model": self.model,
            "layout": self.layout,
            "num_pinned_tokens": self.num_pinned_tokens,
            "num_seen_tokens": self.num_seen_tokens,
            "num_prompt_tokens": self.num_prompt_tokens,
            "num_evicted_tokens": self.num_evicted_tokens,
            "turn_starts": list(self.turn_starts),
            "generation": self.generation,
            "finish_reason": self.finish_reason,
            "adapter": self.adapter,
            "cache": None,
        }
        tensors = {name: torch.tensor(getattr(self, name), dtype=torch.int64) for name in _TENSORS}
        if self.cache is not None:
            cache = self.cache
            facts["cache"] = {
                "num_sink_tokens": cache.num_sink_tokens,
                "window_size": cache.window_size,
                "quantize_cache": cache.quantize_cache,
                "positions": cache.positions,
            }
            tensors |= {
                f"cache.{name}.{layer}": tensor
                for name, per_layer in cache.buffers.items()
                for layer, tensor in enumerate(per_layer)
            }
        return snapshot_to_bytes(tensors, facts)

    @classmethod
    def from_bytes(cls, data: bytes) -> StreamState:
        """Return the state that `to_bytes` wrote.

        Raises:
            SnapshotError: the bytes are damaged, or no state of a stream.
        """
        tensors, facts = snapshot_from_bytes(data)
        if facts.pop("kind", None) != _KIND:
            raise SnapshotError("data is no stream of an engine; pass what to_bytes returned")
        token_tail, pending = (tuple(tensors.pop(name).tolist()) for name in _TENSORS)
        cache, reason = facts.pop("cache"), facts.pop("finish_reason")
        return cls(
            **{**facts, "turn_starts": tuple(facts["turn_starts"])},
            token_tail=token_tail,
            pending=pending,
            cache=None if cache is None else CacheState(**cache, buffers=_by_name(tensors)),
            finish_reason=None if reason is None else FinishReason(reason),
        )


def layout_of(config: StreamConfig) -> dict[str, Any]:
    """Return the fields of a configuration that a stream's buffers depend on."""
    fields = asdict(config)
    sinks = fields["sink_positions"]
    return {
        "cache_size": config.cache_size,
        "num_sink_tokens": config.num_sink_tokens,
        "sink_positions": None if sinks is None else list(sinks),
        "max_rewind_tokens": config.max_rewind_tokens,
        "quantize_cache": config.quantize_cache,
        "eviction": config.eviction
        if config.eviction_grain == 1
        else f"blocks of {config.eviction_grain}",
    }


def _by_name(tensors: dict[str, Tensor]) -> dict[str, list[Tensor]]:
    """Group tensors called `cache.name.layer` by name, in the order of layers."""
    layers: dict[str, dict[int, Tensor]] = {}
    for key, tensor in tensors.items():
        _, name, layer = key.split(".")
        layers.setdefault(name, {})[int(layer)] = tensor
    return {name: [by[i] for i in sorted(by)] for name, by in layers.items()}
