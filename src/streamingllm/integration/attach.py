"""Connect a model to streaming caches, and disconnect it without a trace."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, NoReturn, TypeGuard

from torch import Tensor, nn
from transformers import PreTrainedModel

from streamingllm.errors import UnsupportedFeatureError
from streamingllm.integration.adapters import ADAPTERS, override
from streamingllm.integration.exact_tables import shadow_rotary_modules
from streamingllm.integration.fused_modules import fused_modules
from streamingllm.integration.generation import clear_cache_implementation, shadow_preparation
from streamingllm.integration.hybrid_layers import check_states, hybrid_layers
from streamingllm.integration.indexed_layers import indexers, shadow_indexers
from streamingllm.integration.linears import fused_products, shadow_linears
from streamingllm.integration.shared_layers import reading_layers
from streamingllm.integration.streaming_pass import PassRunner, StreamingCache
from streamingllm.integration.support import (
    check_can_stream,
    configs_of,
    layer_windows,
    wrappers_of,
)
from streamingllm.positions.base import PositionEncoding
from streamingllm.positions.detect import ModelPositions, detect_positions

if TYPE_CHECKING:
    from streamingllm.integration.checked_cache import AttentionFacts

__all__ = ["Attachment", "StreamingCache", "attachment_of"]


class Attachment:
    """Attachment of one decoder: all that is changed in it while it has streaming caches.

    Attributes:
        decoder: whose `forward`, rotary modules, linear layers and fused modules are shadowed.
        hybrid: layers of a model with recurrent states; None for other models.
        windows: own sliding window in tokens of each layer that attends, None where it sees
            everything.
        readers: for each layer without keys of its own, the layer whose keys it attends to.
        adapter: of a family that bypasses the attention interface.
        positions: how the model encodes positions; None with an adapter.
        facts: what its layers do around attention; None with an adapter.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.decoder: nn.Module = model.get_decoder()
        self.hybrid = hybrid_layers(model)
        self.windows = layer_windows(model) if self.hybrid is None else self.hybrid.own_windows
        self.adapter = ADAPTERS.get(model.config.model_type)
        self.positions: ModelPositions | None = None
        self.facts: AttentionFacts | None = None
        self.readers = reading_layers(model)
        self.windows = self.windows[: len(self.windows) - len(self.readers)]
        self._indexers = indexers(self.decoder)
        attending: Sequence[int] | None = None
        if self.hybrid is not None:
            attending = self.hybrid.attending
        elif self.readers or self._indexers:
            attending = range(len(self.windows))
        with evaluating(self.decoder):
            if self.hybrid is not None:
                check_states(model, self.decoder)
            if self.adapter is None:
                self.positions = detect_positions(model, self.decoder, attending)
            self._fused_modules = list(fused_modules(self.decoder))
        products = fused_products(self.decoder)
        self.passes = PassRunner(
            self.decoder,
            wrappers_of(model),
            configs_of(model),
            self.adapter,
            products,
            self._owns,
        )
        self._models: list[weakref.ref[PreTrainedModel]] = []
        self._num_users = 0
        self._undo = ExitStack()

    @property
    def model(self) -> PreTrainedModel:
        """A model of this decoder; whoever uses its caches holds on to it."""
        model = next((model for each in self._models if (model := each()) is not None), None)
        assert model is not None
        return model

    def add_model(self, model: PreTrainedModel) -> None:
        """Let `generate` of one more model of this decoder take streaming caches."""
        with self.passes.lock:
            self._models.append(weakref.ref(model))
            if self._num_users:
                self._undo.callback(shadow_preparation(model, self._owns))

    def encodings(self, cache_size: int) -> tuple[PositionEncoding, ...]:
        """Return each layer's position encoding for queries that see `cache_size` tokens.

        Raises:
            UnsupportedFeatureError: that is more than the model streams exactly.
        """
        self._check_cache_size(cache_size)
        if self.adapter is not None:
            return self.adapter.encodings(self.model, cache_size)
        assert self.positions is not None
        return self.positions.encodings(cache_size)

    def _check_cache_size(self, cache_size: int) -> None:
        family, facts = self.model.config.model_type, self.facts
        limits = [(indexer.index_topk, "its indexer drops keys") for indexer in self._indexers]
        if facts is not None and facts.first_scaled_position is not None:
            limits.append((facts.first_scaled_position, "it scales queries by their position"))
        for limit, reason in limits:
            if cache_size > limit:
                raise UnsupportedFeatureError(
                    f"num_sink_tokens + window_size={cache_size} is too much for {family}: past "
                    f"{limit} tokens {reason}; choose {limit} or less"
                )

    @contextmanager
    def position_ids(self, numbers: Tensor) -> Iterator[None]:
        """Give a model that takes position ids others than 0, int64, [batch, 1]."""
        before, self.passes.position_ids = self.passes.position_ids, numbers
        try:
            yield
        finally:
            self.passes.position_ids = before

    def exclusive(self) -> AbstractContextManager[Any]:
        """Keep the passes of other threads out."""
        return self.passes.lock

    def acquire(self) -> None:
        """Attach for one more cache."""
        with self.passes.lock:
            if self._num_users == 0:
                self._install()
            self._num_users += 1

    def release(self) -> None:
        """Detach after the last cache."""
        with self.passes.lock:
            self._num_users -= 1
            if self._num_users == 0:
                self._undo.close()

    def _install(self) -> None:
        model = self.model
        with ExitStack() as undo:
            undo.callback(self.passes.shadow())
            undo.callback(shadow_linears(model))
            for module, forward in self._fused_modules:  # under what an adapter shadows
                undo.callback(override(module, "forward", forward))
            if self.adapter is not None:
                undo.callback(self.adapter.install(model))
            if self.positions is not None:
                undo.callback(shadow_rotary_modules(self.decoder, self.positions))
            undo.callback(shadow_indexers(self._indexers))
            for each in self._models:
                if (owner := each()) is not None:
                    undo.callback(shadow_preparation(owner, self._owns))
            undo.callback(clear_cache_implementation(model))
            self._undo = undo.pop_all()

    def _owns(self, cache: Any) -> TypeGuard[StreamingCache]:
        return isinstance(cache, StreamingCache) and cache.attachment is self

    def __reduce__(self) -> NoReturn:
        self.passes.__reduce__()


_attachments: weakref.WeakKeyDictionary[PreTrainedModel, Attachment] = weakref.WeakKeyDictionary()
_making = threading.RLock()


def attachment_of(model: PreTrainedModel) -> Attachment:
    """Return the attachment of a model's decoder, made on first use.

    Models that share a decoder share its attachment, and so does a wrapper such as a `PeftModel`.

    Raises:
        UnsupportedModelError: the model cannot stream.
    """
    owner = _generating_model(model)
    with _making:
        if owner not in _attachments:
            check_can_stream(owner, ADAPTERS)
            shared = _attachment_of_decoder(owner)
            attachment = shared or Attachment(owner)
            attachment.add_model(owner)
            _attachments[owner] = attachment
            if shared is None:
                _check(owner, attachment)
        return _attachments[owner]


def _check(model: PreTrainedModel, attachment: Attachment) -> None:
    """Check a model that has just been attached, and forget it again if it fails."""
    from streamingllm.integration.self_check import check_model  # which needs attached models

    if attachment.adapter is not None:
        return
    try:
        with attachment.exclusive(), evaluating(attachment.decoder):
            attachment.facts = check_model(model, attachment)
    except BaseException:
        del _attachments[model]
        raise


def _generating_model(model: PreTrainedModel) -> PreTrainedModel:
    """Return the model itself, or the one that a wrapper calls."""
    parts = (part for part in model.modules() if isinstance(part, PreTrainedModel))
    return next((part for part in parts if part.can_generate()), model)


def _attachment_of_decoder(model: PreTrainedModel) -> Attachment | None:
    others = (a for a in _attachments.values() if a.decoder is model.get_decoder())
    return next(others, None)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module into evaluation, and each of its parts back into its own mode."""
    training = [part for part in module.modules() if part.training]
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True
