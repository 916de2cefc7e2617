"""Run one pass of a decoder with a streaming cache, and leave the decoder as it was."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial, update_wrapper
from typing import Any, NoReturn, Protocol, TypeGuard, runtime_checkable

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig

from streamingllm.attention.forward_plan import ForwardPlan, active_plan
from streamingllm.attention.plan import Chunk
from streamingllm.cache.stateful_ring_cache import StatefulRingCache
from streamingllm.errors import UnsupportedFeatureError
from streamingllm.integration.adapters import Adapter, Undo, override
from streamingllm.integration.linears import Products, active_products, can_fuse
from streamingllm.integration.pass_inputs import (
    apply_mask,
    check_outputs,
    check_training,
    check_use_cache,
    tensor_input,
    valid_tokens,
)
from streamingllm.integration.recurrent_pass import run_in_parts
from streamingllm.integration.register import IMPLEMENTATION
from streamingllm.integration.wrapped_pass import WrappedPass, has_media


@runtime_checkable
class StreamingCache(Protocol):
    """A cache that plans the passes it is given to."""

    @property
    def attachment(self) -> object:
        """The attachment of the model that the cache was made for."""
        ...

    def get_seq_length(self) -> int:
        """Columns fed so far, padding included."""
        ...

    def begin(
        self, batch_size: int, num_tokens: int, valid: Tensor | None, device: torch.device
    ) -> ForwardPlan:
        """Plan a pass."""
        ...

    def end(self, succeeded: bool) -> None:
        """Write the tokens of the pass, or forget them."""
        ...


class PassRunner:
    """Run the passes of one decoder: those with a streaming cache follow the cache's plan.

    In such a pass `_attn_implementation` names our attention, linear layers compute fused products,
    and a lock keeps other threads out. Any other pass runs as if nothing were attached.

    Args:
        decoder: whose `forward` is shadowed.
        wrappers: modules around it that make its masks; a pass begins with the first of them.
        configs: the configs that the model's modules read their attention implementation from.
        adapter: of a family that bypasses the attention interface.
        products: fused products of the decoder's linear layers.
        owns: whether a cache belongs to this decoder.

    Attributes:
        position_ids: that a model is given; all are 0 except while it is checked.
        stepwise: whether a hybrid model continues its states right with single tokens only.
    """

    def __init__(
        self,
        decoder: nn.Module,
        wrappers: Iterable[nn.Module],
        configs: Iterable[PreTrainedConfig],
        adapter: Adapter | None,
        products: Products,
        owns: Callable[[Any], TypeGuard[StreamingCache]],
    ) -> None:
        self.lock = threading.RLock()
        self.position_ids: int | Tensor = 0
        self.stepwise = False
        self._decoder = decoder
        self._wrappers = list(wrappers)
        self._running: WrappedPass | None = None
        self._configs = list(configs)
        self._adapter = adapter
        self._products = products
        self._owns = owns
        self._parameters = [*inspect.signature(decoder.forward).parameters]

    def shadow(self) -> Undo:
        """Shadow the decoder's `forward`; return what takes the shadow away."""
        # Not torch's forward hooks: an interrupted pass (KeyboardInterrupt) never reaches them.
        with ExitStack() as undo:
            for module in (self._decoder, *self._wrappers):
                own_forward = module.forward
                run = self._forward if module is self._decoder else self._forward_of_wrapper
                forward = update_wrapper(partial(run, own_forward), own_forward)
                undo.callback(override(module, "forward", forward))
            return undo.pop_all().close

    def _forward(self, own_forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_dynamo_compiling():
            return self._forward_outside_graphs(own_forward, *args, **kwargs)
        with self.lock:
            cache = kwargs.get("past_key_values")
            if not self._owns(cache):
                return own_forward(*args, **kwargs)
            if self._running is not None:
                self._running.check(kwargs)
                return own_forward(*args, **self._planned(self._running.chunk, kwargs))
            run = partial(self._run, own_forward, cache)
            if _has_states(cache):
                named = dict(zip(self._parameters, args, strict=False)) | kwargs
                return run_in_parts(run, cache, named, stepwise=self.stepwise)
            return run(kwargs, *args)

    def _run(
        self,
        own_forward: Callable[..., Any],
        cache: StreamingCache,
        kwargs: dict[str, Any],
        *args: Any,
    ) -> Any:
        with self._pass(cache, args, kwargs) as plan:
            return own_forward(*args, **self._planned(plan.chunk, kwargs))

    def _forward_of_wrapper(
        self, own_forward: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Any:
        """Begin the pass before the decoder does, so that masks made for it are the plan."""
        cache = kwargs.get("past_key_values")
        if torch.compiler.is_dynamo_compiling() or not self._owns(cache):
            return own_forward(*args, **kwargs)
        with self.lock:
            # A pass of a hybrid model has parts, which begin at the decoder.
            if self._running is not None or _has_states(cache):
                return own_forward(*args, **kwargs)
            with self._pass(cache, args, kwargs) as plan:
                self._running = WrappedPass(plan.chunk, has_media(kwargs))
                try:
                    return own_forward(*args, **kwargs)
                finally:
                    self._running = None

    # Not around `_forward`: an exported decode step goes through it, and exporting refuses this.
    @torch.compiler.disable(recursive=False)  # type: ignore[untyped-decorator]
    def _forward_outside_graphs(
        self, own_forward: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Any:
        if self._owns(kwargs.get("past_key_values")):
            # The cache plans each pass in Python, which nothing can compile.
            return torch.compiler.disable(self._forward)(own_forward, *args, **kwargs)
        with self.lock:
            return own_forward(*args, **kwargs)

    @contextmanager
    def _pass(
        self, cache: StreamingCache, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Iterator[ForwardPlan]:
        """Plan a pass, yield its plan, and undo everything after."""
        check_outputs(kwargs, self._configs)
        check_use_cache(kwargs)
        check_training(self._decoder)
        inputs = tensor_input(args, kwargs)
        mask = kwargs.get("attention_mask")
        valid = valid_tokens(mask, inputs)
        apply_mask(mask, inputs, cache)
        plan = cache.begin(inputs.shape[0], inputs.shape[1], valid, inputs.device)
        with self._following(plan):
            try:
                yield plan
            except BaseException:
                cache.end(succeeded=False)
                raise
            cache.end(succeeded=True)

    @contextmanager
    def _following(self, plan: ForwardPlan) -> Iterator[None]:
        """Let attention, rotary modules and linear layers follow `plan`."""
        with ExitStack() as undo:
            undo.callback(active_plan.reset, active_plan.set(plan))
            undo.enter_context(self._fused())
            for config in self._configs:
                # The property would reach into nested configs, which have values of their own.
                name = "_attn_implementation_internal"
                undo.callback(setattr, config, name, getattr(config, name))
                setattr(config, name, IMPLEMENTATION)
            yield

    def _fused(self) -> AbstractContextManager[None]:
        return active_products(self._products) if can_fuse(self._decoder) else nullcontext()

    def __reduce__(self) -> NoReturn:
        raise UnsupportedFeatureError(
            "a model cannot be copied or pickled while it has SinkCaches: disable() them first"
        )

    def _planned(self, chunk: Chunk, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return the decoder's keyword arguments, with those that the plan decides."""
        planned = kwargs | {"attention_mask": None}
        if "position_ids" in self._parameters:
            planned["position_ids"] = self._position_ids(chunk)
        if "logits_to_keep" in kwargs:  # Gemma 4 would drop queries, which the plan has
            planned["logits_to_keep"] = None
        return planned

    def _position_ids(self, chunk: Chunk) -> Tensor:
        if self._adapter is not None:
            return self._adapter.position_ids(chunk)
        # The tables are replaced by exact ones; zeros never trigger length-dependent scaling rules.
        return torch.zeros_like(chunk.positions) + self.position_ids


def _has_states(cache: StreamingCache) -> TypeGuard[StatefulRingCache]:
    return isinstance(cache, StatefulRingCache) and cache.states is not None
