"""Connect a model to streaming caches, and disconnect it without a trace."""

from __future__ import annotations

import inspect
import threading
import weakref
from contextlib import ExitStack
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from streamingllm.attention.adapters import ADAPTERS
from streamingllm.attention.dispatch import IMPLEMENTATION
from streamingllm.attention.forward_plan import ForwardPlan, active_plan
from streamingllm.attention.support import check_can_stream, layer_windows
from streamingllm.errors import InputError, UnsupportedFeatureError, UnsupportedModelError
from streamingllm.positions.base import PositionEncoding
from streamingllm.positions.detect import (
    ModelPositions,
    detect_positions,
    layer_type_of,
    rotary_modules,
)
from streamingllm.positions.rope import RopeEncoding


class StreamingCache(Protocol):
    """What a forward pass asks of a cache."""

    def begin(self, batch_size: int, num_tokens: int, valid: Tensor | None, device: torch.device) -> ForwardPlan:
        """Plan a pass."""
        ...

    def end(self, succeeded: bool) -> None:
        """Write the tokens of the pass, or forget them."""
        ...


class Attachment:
    """The hooks on one model, shared by all its streaming caches.

    Outside a pass with a streaming cache the model is untouched. During one, `_attn_implementation`
    names our attention, rotary modules return exact tables, and a lock keeps other threads out.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        check_can_stream(model)
        self.model = model
        self.decoder: nn.Module = model.get_decoder()
        self.windows = layer_windows(model)
        self.adapter = ADAPTERS.get(model.config.model_type)
        self.positions: ModelPositions | None = None
        if self.adapter is None:
            self._check_interface()
            self.positions = detect_positions(model, self.decoder)
        self._parameters = inspect.signature(self.decoder.forward).parameters
        self._configs = list({id(m.config): m.config for m in self._configured()}.values())
        self._lock = threading.RLock()
        self._running: tuple[StreamingCache, ExitStack] | None = None
        self._users = 0
        self._hooks = ExitStack()

    def encodings(self, cache_size: int) -> tuple[PositionEncoding, ...]:
        """Return each layer's position encoding for queries that see `cache_size` tokens."""
        if self.adapter is not None:
            return self.adapter.encodings(self.model, cache_size)
        assert self.positions is not None
        return self.positions.encodings(cache_size)

    def acquire(self) -> None:
        """Install the hooks for one more cache."""
        with self._lock:
            if self._users == 0:
                self._install()
            self._users += 1

    def release(self) -> None:
        """Take the hooks away after the last cache."""
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._hooks.close()

    def _install(self) -> None:
        self._hooks.callback(
            self.decoder.register_forward_pre_hook(self._before, with_kwargs=True).remove
        )
        self._hooks.callback(
            self.decoder.register_forward_hook(
                self._after, with_kwargs=True, always_call=True
            ).remove
        )
        if self.adapter is not None:
            self._hooks.callback(self.adapter.install(self.model))
        for module in rotary_modules(self.decoder) if self.positions else ():
            hook = module.register_forward_hook(self._exact_tables, with_kwargs=True)
            self._hooks.callback(hook.remove)
        self._hooks.callback(_clear_cache_implementation(self.model))

    def _before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Plan the pass if it comes with a streaming cache."""
        self._lock.acquire()
        try:
            cache = kwargs.get("past_key_values")
            if not hasattr(cache, "begin") or not hasattr(cache, "end"):
                return None
            inputs = _tensor_input(args, kwargs)
            valid = _valid_tokens(kwargs.get("attention_mask"), inputs)
            plan = cache.begin(inputs.shape[0], inputs.shape[1], valid, inputs.device)
            return args, self._enter(cache, plan, kwargs)
        except BaseException:
            # torch calls `_after` for this failure too, which is what lets go of the lock
            raise

    def _enter(self, cache: StreamingCache, plan: ForwardPlan, kwargs: dict[str, Any]) -> Any:
        undo = ExitStack()
        self._running = (cache, undo)
        token = active_plan.set(plan)
        undo.callback(active_plan.reset, token)
        for config in self._configs:
            undo.callback(setattr, config, "_attn_implementation", config._attn_implementation)
            config._attn_implementation = IMPLEMENTATION
        kwargs = {**kwargs, "attention_mask": None}
        if "position_ids" in self._parameters:
            kwargs["position_ids"] = self._position_ids(plan)
        return kwargs

    def _after(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        """Undo what `_before` did, whether the pass succeeded or not."""
        try:
            if self._running is not None:
                cache, undo = self._running
                self._running = None
                undo.close()
                cache.end(succeeded=output is not None)
        finally:
            self._lock.release()

    def _position_ids(self, plan: ForwardPlan) -> Tensor:
        if self.adapter is not None:
            return self.adapter.position_ids(plan.chunk)
        # The tables are replaced by exact ones; zeros keep length-dependent scaling rules at rest.
        return torch.zeros_like(plan.chunk.positions)

    def _exact_tables(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        plan = active_plan.get()
        if plan is None or not isinstance(output, tuple):
            return None
        assert self.positions is not None
        layer_type = layer_type_of(args, kwargs)
        for layer, encoding in zip(self.positions.layers, plan.encodings, strict=True):
            table = layer.table
            if table is None or table.module is not module or table.layer_type != layer_type:
                continue
            assert isinstance(encoding, RopeEncoding)
            return encoding.tables(plan.chunk.model_positions, table.columns, output[0].dtype)
        return None

    def _configured(self) -> list[Any]:
        return [m for m in self.model.modules() if hasattr(m, "config")]

    def _check_interface(self) -> None:
        """Refuse families that neither use the attention interface nor have an adapter."""
        source = inspect.getmodule(type(self.decoder))
        if not hasattr(source, "ALL_ATTENTION_FUNCTIONS"):
            raise UnsupportedModelError(
                f"{self.model.config.model_type} cannot stream: it computes attention outside "
                "transformers' attention interface and has no adapter here; adapters exist for "
                f"{', '.join(sorted(ADAPTERS))}"
            )


_attachments: weakref.WeakKeyDictionary[PreTrainedModel, Attachment] = weakref.WeakKeyDictionary()


def attachment_of(model: PreTrainedModel) -> Attachment:
    """Return the model's attachment, made on first use.

    Raises:
        UnsupportedModelError: the model cannot stream.
    """
    if model not in _attachments:
        _attachments[model] = Attachment(model)
    return _attachments[model]


def _tensor_input(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    for candidate in (kwargs.get("input_ids"), kwargs.get("inputs_embeds"), *args[:1]):
        if isinstance(candidate, Tensor):
            return candidate
    raise InputError("input_ids: a forward pass with a SinkCache needs input_ids or inputs_embeds")


def _valid_tokens(mask: Any, inputs: Tensor) -> Tensor | None:
    """Return which of this pass's tokens are not padding, bool, [batch, seq]; None if all."""
    if mask is None:
        return None
    if not isinstance(mask, Tensor) or mask.ndim != 2:
        raise UnsupportedFeatureError(
            "attention_mask: a SinkCache takes a 2-D padding mask [batch, tokens], not a custom one"
        )
    if mask.shape[1] < inputs.shape[1]:
        raise InputError(
            f"attention_mask has {mask.shape[1]} columns: must cover the {inputs.shape[1]} new tokens"
        )
    valid = mask[:, -inputs.shape[1] :].to(device=inputs.device, dtype=torch.bool)
    return None if bool(valid.all()) else valid


def _clear_cache_implementation(model: PreTrainedModel) -> Any:
    """Let `generate` take our cache although the checkpoint's generation config names another."""
    config = getattr(model, "generation_config", None)
    named = getattr(config, "cache_implementation", None)
    if config is None or named is None:
        return lambda: None
    config.cache_implementation = None
    return lambda: setattr(config, "cache_implementation", named)
