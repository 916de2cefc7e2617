"""A decode step as a module of plain tensors, which can be exported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from itertools import chain
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel
from transformers.cache_utils import CacheLayerMixin

from streamingllm.attention.forward_plan import ForwardPlan
from streamingllm.attention.plan import Chunk
from streamingllm.attention.step_plan import RingBuffers, StepLayout, StepPlan
from streamingllm.graphs.step_linears import StepLinears
from streamingllm.integration.attach import Attachment
from streamingllm.positions.base import PositionEncoding


class StepToken(NamedTuple):
    """A token of a decode step: its id, slot, stream position and, per geometry, what it sees."""

    token_id: int
    slot: int
    position: int
    layouts: Sequence[StepLayout]

    @property
    def numbers(self) -> list[int]:
        """Numbers of the token in the order that `StepModule` takes them."""
        return [self.token_id, self.slot, self.position, *chain.from_iterable(self.layouts)]


def numbers_of(tokens: Sequence[StepToken]) -> Tensor:
    """Return the tokens of one step as `StepModule` takes them, on the CPU."""
    return torch.tensor([token.numbers for token in tokens]).T.contiguous()


def nobody(num_geometries: int) -> StepToken:
    """Return a token without a slot, which fills up a step on a GPU.

    It writes nothing, and logits of it are not numbers. Operators of processors do not take it.
    """
    nothing = StepLayout(*[0] * len(StepLayout._fields))
    return StepToken(0, -1, 0, [nothing] * num_geometries)


class StepModule(nn.Module):
    """Feed one token to each of several streams.

    Args:
        model: a decoder that `attachment` belongs to.
        attachment: has been acquired.
        encodings: of each layer.
        geometry_of: for each layer, the number of its geometry.

    Attributes:
        written_layers: layers whose rings have the tokens of the step that runs or ran last.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        attachment: Attachment,
        encodings: tuple[PositionEncoding, ...],
        geometry_of: tuple[int, ...],
    ) -> None:
        super().__init__()
        self.model = model
        self.attachment = attachment
        self._readers = attachment.readers
        self.geometry_of = geometry_of + tuple(geometry_of[layer] for layer in self._readers)
        encodings += tuple(encodings[layer] for layer in self._readers)
        self.written_layers: list[int] = []
        self.linears = StepLinears(model)
        self._names = {f"linear_{i}": name for i, name in enumerate(self.linears.tensors)}
        for key, name in self._names.items():
            self.register_buffer(key, self.linears.tensors[name], persistent=False)
        # Most layers share one encoding; its tensors become constants of the graph like weights.
        self._unique = tuple({id(e): e for e in encodings}.values())
        self._encoding_of = tuple(
            next(i for i, u in enumerate(self._unique) if u is e) for e in encodings
        )
        for i, encoding in enumerate(self._unique):
            for field, tensor in _tensors(encoding).items():
                # Where the model is: a step that is captured may copy nothing from the host.
                self.register_buffer(
                    f"encoding_{i}_{field}", tensor.to(model.device), persistent=False
                )

    def forward(
        self,
        numbers: Tensor,
        buffers: list[RingBuffers],
    ) -> Tensor:
        """Return the logits [batch, vocab] after one token for each slot; see `StepPlan`.

        Args:
            numbers: token ids, slots, positions and, per geometry, a `StepLayout`; int64,
                [3 + 5 x geometries, batch].
            buffers: of each layer.
        """
        ids, slots, positions = numbers[:3].unbind()
        layouts = numbers[3:].split(len(StepLayout._fields))
        self.written_layers.clear()
        # An exporter puts its own stand-ins in the buffers' place.
        self.linears.tensors.update({n: getattr(self, key) for key, n in self._names.items()})
        origin = torch.zeros_like(positions)
        plan = StepPlan(
            Chunk(positions, positions[:, None], None, origin, ids.shape[0]),
            windows=(),
            encodings=self._encodings(),
            buffers=self._with_readers([RingBuffers(*b) for b in buffers]),
            slots=slots,
            positions=positions,
            geometry_of=self.geometry_of,
            layouts=tuple(layout[:-1] for layout in layouts),
            sink_shifts=tuple(layout[-1] for layout in layouts),
            written_layers=self.written_layers,
        )
        cache = _StepCache(self.attachment, plan)
        with self.linears.active():
            output = self.model(input_ids=ids[:, None], past_key_values=cache, use_cache=True)
        logits: Tensor = output.logits[:, -1]
        return logits

    def _with_readers(self, buffers: list[RingBuffers]) -> tuple[RingBuffers, ...]:
        """Return each layer's buffers, also of layers that read those of an earlier one.

        Such a layer writes the same token again. It has no undo entries: the earlier layer has put
        what the token overwrites there.
        """
        read = (buffers[layer] for layer in self._readers)
        return (
            *buffers,
            *(b._replace(k_undo=b.k_undo[:, :, :0], v_undo=b.v_undo[:, :, :0]) for b in read),
        )

    def _encodings(self) -> tuple[PositionEncoding, ...]:
        """Each layer's encoding, made of buffers of this module."""
        own: list[Any] = [
            replace(
                cast(Any, encoding),
                **{field: getattr(self, f"encoding_{i}_{field}") for field in _tensors(encoding)},
            )
            for i, encoding in enumerate(self._unique)
        ]
        return tuple(own[i] for i in self._encoding_of)


def _tensors(encoding: Any) -> dict[str, Tensor]:
    values = {field.name: getattr(encoding, field.name) for field in fields(encoding)}
    return {name: value for name, value in values.items() if isinstance(value, Tensor)}


class _StepCache(Cache):
    """Hand the plan to a pass, and the tokens of the pass to the plan."""

    def __init__(self, attachment: Attachment, plan: StepPlan) -> None:
        Cache.__init__(self, layers=[_PassThrough() for _ in plan.buffers])
        self.attachment = attachment
        self._plan = plan

    def begin(self, *args: Any) -> ForwardPlan:
        """Return the step's plan."""
        return self._plan

    def end(self, succeeded: bool) -> None:
        """Do nothing: the operator has written the tokens."""

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return 0: positions come from the plan."""
        return 0


class _PassThrough(CacheLayerMixin):
    """A layer's cache that returns the token it is given."""

    is_compileable = False
    is_sliding = False

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Do nothing."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Return what came."""
        return key_states, value_states

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Sizes for mask functions that are not asked, since the plan is the mask."""
        return query_length, 0

    def get_seq_length(self) -> int:
        """Return 0: positions come from the plan."""
        return 0

    def get_max_length(self) -> int:
        """Return -1, as transformers defines it: there is no limit."""
        return -1
