"""Connect a model to streaming caches, and disconnect it without a trace."""

from __future__ import annotations

import inspect
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial, update_wrapper
from typing import Any, NoReturn, Protocol, TypeGuard, runtime_checkable

import torch
from torch import Tensor, nn
from transformers import GenerationMixin, PreTrainedConfig, PreTrainedModel

from streamingllm.attention.forward_plan import ForwardPlan, active_plan
from streamingllm.errors import UnsupportedFeatureError, UnsupportedModelError
from streamingllm.integration.adapters import ADAPTERS, Undo, override
from streamingllm.integration.fused_modules import fused_modules
from streamingllm.integration.pass_inputs import (
    check_outputs,
    check_unread,
    tensor_input,
    valid_tokens,
)
from streamingllm.integration.register import IMPLEMENTATION
from streamingllm.integration.self_check import agree, check_failed, check_ids, check_plan
from streamingllm.integration.support import check_can_stream, layer_windows
from streamingllm.positions.base import PositionEncoding
from streamingllm.positions.detect import ModelPositions, detect_positions
from streamingllm.positions.rope import RopeEncoding
from streamingllm.positions.tables import (
    RotaryTable,
    hidden_states_of,
    layer_type_of,
    rotary_modules,
)

_PREPARATION = "prepare_inputs_for_generation"


@runtime_checkable
class StreamingCache(Protocol):
    """What a forward pass asks of a cache."""

    @property
    def attachment(self) -> Attachment:
        """The model that the cache was made for, with what is changed in it."""
        ...

    def get_seq_length(self) -> int:
        """Columns read so far, padding included."""
        ...

    def begin(
        self, batch_size: int, num_tokens: int, valid: Tensor | None, device: torch.device
    ) -> ForwardPlan:
        """Plan a pass."""
        ...

    def end(self, succeeded: bool) -> None:
        """Write the tokens of the pass, or forget them."""
        ...


class Attachment:
    """What is changed in one model while it has streaming caches, shared by all of them.

    The decoder's `forward` and the model's `prepare_inputs_for_generation` are shadowed. In a pass
    with a streaming cache `_attn_implementation` names our attention, rotary modules return exact
    tables, and a lock keeps other threads out; any other pass runs as if nothing were attached. The
    model itself is not kept alive.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        check_can_stream(model, ADAPTERS)
        self._model = weakref.ref(model)
        self.decoder: nn.Module = model.get_decoder()
        self.windows = layer_windows(model)
        self.adapter = ADAPTERS.get(model.config.model_type)
        self.positions: ModelPositions | None = None
        if self.adapter is None:
            self.positions = detect_positions(model, self.decoder)
        self._parameters = inspect.signature(self.decoder.forward).parameters
        self._configs = _configs(model)
        self._lock = threading.RLock()
        self._users = 0
        self._undo = ExitStack()
        self._fused_modules = [] if model.training else list(fused_modules(self.decoder))
        if self.adapter is None and not model.training:
            self._self_check()

    @property
    def model(self) -> PreTrainedModel:
        """The model, which whoever uses its caches holds on to."""
        model = self._model()
        assert model is not None
        return model

    def encodings(self, cache_size: int) -> tuple[PositionEncoding, ...]:
        """Return each layer's position encoding for queries that see `cache_size` tokens."""
        if self.adapter is not None:
            return self.adapter.encodings(self.model, cache_size)
        assert self.positions is not None
        return self.positions.encodings(cache_size)

    def acquire(self) -> None:
        """Attach for one more cache."""
        with self._lock:
            if self._users == 0:
                self._install()
            self._users += 1

    def release(self) -> None:
        """Detach after the last cache."""
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._undo.close()

    def _install(self) -> None:
        with ExitStack() as undo:
            undo.callback(override(self.decoder, "forward", self._streaming_forward()))
            for module, forward in self._fused_modules:  # under what an adapter shadows
                undo.callback(override(module, "forward", forward))
            if self.adapter is not None:
                undo.callback(self.adapter.install(self.model))
            for module in rotary_modules(self.decoder) if self.positions else ():
                undo.callback(override(module, "forward", self._exact_tables(module)))
            undo.callback(override(self.model, _PREPARATION, self._streaming_preparation()))
            undo.callback(_clear_cache_implementation(self.model))
            self._undo = undo.pop_all()

    def _streaming_forward(self) -> Callable[..., Any]:
        # Not torch's forward hooks: an interrupted pass (KeyboardInterrupt) never reaches them.
        own_forward = self.decoder.forward
        return update_wrapper(partial(self._forward, own_forward), own_forward)

    def _forward(self, own_forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        with self._lock:
            cache = kwargs.get("past_key_values")
            if not self._owns(cache):
                return own_forward(*args, **kwargs)
            with self._pass(cache, args, kwargs) as planned:
                return own_forward(*args, **planned)

    def _streaming_preparation(self) -> Callable[..., Any]:
        own_preparation = getattr(self.model, _PREPARATION)
        return update_wrapper(partial(self._prepare, own_preparation), own_preparation)

    def _prepare(
        self, own_preparation: Callable[..., Any], input_ids: Tensor, **kwargs: Any
    ) -> dict[str, Any]:
        """Choose what `generate` feeds next: the ids that the cache has not read yet."""
        cache = kwargs.get("past_key_values")
        if self._owns(cache):
            check_unread(input_ids, kwargs.get("next_sequence_length"), cache.get_seq_length())
        prepared: dict[str, Any] = own_preparation(input_ids, **kwargs)
        if self._owns(cache) and prepared.get("past_key_values") is not cache:
            # Phi-3 drops its cache where its frequencies change with length; ours never change.
            general: Callable[..., Any] = GenerationMixin.prepare_inputs_for_generation
            prepared = general(self.model, input_ids, **kwargs)
        return prepared

    def _owns(self, cache: Any) -> TypeGuard[StreamingCache]:
        return isinstance(cache, StreamingCache) and cache.attachment is self

    def __reduce__(self) -> NoReturn:
        raise UnsupportedFeatureError(
            "a model cannot be copied or pickled while it has SinkCaches: disable() them first"
        )

    @contextmanager
    def _pass(
        self, cache: StreamingCache, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Iterator[dict[str, Any]]:
        """Plan a pass, yield the decoder's keyword arguments for it, and undo everything after."""
        check_outputs(kwargs, self._configs)
        inputs = tensor_input(args, kwargs)
        valid = valid_tokens(kwargs.get("attention_mask"), inputs)
        plan = cache.begin(inputs.shape[0], inputs.shape[1], valid, inputs.device)
        with self._following(plan):
            try:
                yield {**kwargs, **self._planned(plan)}
            except BaseException:
                cache.end(succeeded=False)
                raise
            cache.end(succeeded=True)

    @contextmanager
    def _following(self, plan: ForwardPlan) -> Iterator[None]:
        """Let attention and rotary modules follow `plan`."""
        with ExitStack() as undo:
            undo.callback(active_plan.reset, active_plan.set(plan))
            for config in self._configs:
                # The property would reach into nested configs, which have values of their own.
                name = "_attn_implementation_internal"
                undo.callback(setattr, config, name, getattr(config, name))
                setattr(config, name, IMPLEMENTATION)
            yield

    def _planned(self, plan: ForwardPlan) -> dict[str, Any]:
        """Return the decoder's keyword arguments that the plan decides."""
        if "position_ids" not in self._parameters:
            return {"attention_mask": None}
        return {"attention_mask": None, "position_ids": self._position_ids(plan)}

    def _self_check(self) -> None:
        """Refuse a model that computes something else in a stream than by itself."""
        ids = check_ids(self.model)
        plan = check_plan(ids, self.windows, self.encodings(ids.shape[1]))
        self._install()
        with self._undo, torch.no_grad():
            by_itself = self.decoder(ids, use_cache=False)[0]
            try:
                with self._following(plan):
                    in_stream = self.decoder(ids, use_cache=False, **self._planned(plan))[0]
            except (AttributeError, TypeError, RuntimeError, UnsupportedModelError) as error:
                raise check_failed(self.model) from error
        if not agree(by_itself, in_stream):
            raise check_failed(self.model)

    def _position_ids(self, plan: ForwardPlan) -> Tensor:
        if self.adapter is not None:
            return self.adapter.position_ids(plan.chunk)
        # The tables are replaced by exact ones; zeros keep length-dependent scaling rules at rest.
        return torch.zeros_like(plan.chunk.positions)

    def _exact_tables(self, rotary: nn.Module) -> Callable[..., Any]:
        """Return a `forward` for a rotary module that is exact at any stream position."""
        assert self.positions is not None
        tables = {
            table.layer_type: (layer, table)
            for table in self.positions.tables
            if table.module is rotary and (layer := self.positions.first_user(table)) is not None
        }
        own_forward = rotary.forward
        return update_wrapper(partial(self._look_up, own_forward, tables), own_forward)

    def _look_up(
        self,
        own_forward: Callable[..., Any],
        tables: dict[str | None, tuple[int, RotaryTable]],
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        plan = active_plan.get()
        used = tables.get(layer_type_of(args, kwargs))
        if plan is None or used is None:
            return own_forward(*args, **kwargs)
        layer, table = used
        encoding = plan.encodings[layer]
        assert isinstance(encoding, RopeEncoding)
        dtype = table.dtype or hidden_states_of(args, kwargs).dtype
        return encoding.tables(plan.chunk.model_positions, table.columns, dtype)


_attachments: weakref.WeakKeyDictionary[PreTrainedModel, Attachment] = weakref.WeakKeyDictionary()


def attachment_of(model: PreTrainedModel) -> Attachment:
    """Return the model's attachment, made on first use.

    Raises:
        UnsupportedModelError: the model cannot stream.
    """
    if model not in _attachments:
        _attachments[model] = Attachment(model)
    return _attachments[model]


def _configs(model: PreTrainedModel) -> list[PreTrainedConfig]:
    """Return the configs that the model's modules read their attention implementation from."""
    configs = [getattr(module, "config", None) for module in model.modules()]
    return list({id(c): c for c in configs if isinstance(c, PreTrainedConfig)}.values())


def _clear_cache_implementation(model: PreTrainedModel) -> Undo:
    """Let `generate` take our cache although the checkpoint's generation config names another."""
    config = getattr(model, "generation_config", None)
    named = getattr(config, "cache_implementation", None)
    if config is None or named is None:
        return lambda: None
    config.cache_implementation = None
    return lambda: setattr(config, "cache_implementation", named)
