"""One layer's recurrent states: convolution and state-space or linear-attention states."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import CacheLayerMixin, LinearAttentionLayer

from streamingllm.cache.ring import RingLayer

NUM_CHECKPOINTS = 2


class StateLayer(LinearAttentionLayer):
    """Hold the states of one recurrent layer, and checkpoints of them.

    A model writes its states during a pass, in place. Their size does not depend on the tokens
    seen. Each tensor is [batch, ...]; its checkpoints have the same shape.

    Args:
        number_of_states: convolution and recurrent states of the layer, as transformers counts.
        num_checkpoints: copies of each state that are held for `rewind`.
    """

    is_compileable = False
    is_croppable = True

    def __init__(self, number_of_states: int = 1, num_checkpoints: int = NUM_CHECKPOINTS) -> None:
        super().__init__(number_of_states=number_of_states)
        self._num_checkpoints = num_checkpoints
        self._checkpoints: dict[str, Tensor] = {}

    @property
    def states(self) -> dict[str, Tensor]:
        """The current states by name."""
        kinds = (("conv", self.conv_states), ("recurrent", self.recurrent_states))
        return {
            f"{kind}{index}": state
            for kind, states in kinds
            for index, state in states.items()
            if state is not None
        }

    def checkpoint(self, number: int) -> dict[str, Tensor]:
        """Return the tensors of one checkpoint by the names of the states."""
        return {name: self._checkpoints[f"{name}_at{number}"] for name in self.states}

    @property
    def buffers(self) -> dict[str, Tensor]:
        """The tensors that make up the layer's state, checkpoints included."""
        return self.states | self._checkpoints

    @buffers.setter
    def buffers(self, tensors: dict[str, Tensor]) -> None:
        for name, tensor in tensors.items():
            if "_at" in name:
                self._checkpoints[name] = tensor
                continue
            kind = "conv" if name.startswith("conv") else "recurrent"
            self._set(kind, int(name.removeprefix(kind)), tensor)

    def _set(self, kind: str, index: int, tensor: Tensor) -> None:
        if kind == "conv":
            self.conv_states[index] = tensor
            self.is_conv_states_initialized[index] = True
            self.conv_kernel_size[index] = tensor.shape[-1]
        else:
            self.recurrent_states[index] = tensor
            self.is_recurrent_states_initialized[index] = True
        self.dtype, self.device = tensor.dtype, tensor.device  # type: ignore[assignment]

    @property
    def has_tokens(self) -> bool:
        """Return whether the states have read a token; before that their numbers mean nothing."""
        return any(self.has_previous_state.values())

    @has_tokens.setter
    def has_tokens(self, value: bool) -> None:
        self.has_previous_state = dict.fromkeys(self.has_previous_state, value)

    @property
    def nbytes(self) -> int:
        """Bytes of the states."""
        return sum(state.nbytes for state in self.states.values())

    @property
    def rewind_nbytes(self) -> int:
        """Bytes of the checkpoints."""
        return sum(tensor.nbytes for tensor in self._checkpoints.values())

    @torch.inference_mode(False)  # so that they can be written in and out of inference mode
    def lazy_initialization(
        self,
        conv_states: Tensor | None = None,
        recurrent_states: Tensor | None = None,
        state_idx: int = 0,
        conv_kernel_size: int | None = None,
    ) -> None:
        """Allocate a state, and its checkpoints, like the one given.

        Args:
            conv_states: [batch, channels, columns]; `conv_kernel_size` of them are held.
            recurrent_states: [batch, ...].
            state_idx: number of the state within the layer.
            conv_kernel_size: columns that are held; those given if None.
        """
        if conv_states is not None:
            width = conv_states.shape[-1] if conv_kernel_size is None else conv_kernel_size
            self._allocate("conv", state_idx, conv_states, (*conv_states.shape[:-1], width))
        if recurrent_states is not None:
            self._allocate("recurrent", state_idx, recurrent_states, recurrent_states.shape)

    def _allocate(self, kind: str, index: int, like: Tensor, shape: tuple[int, ...]) -> None:
        self._set(kind, index, like.new_zeros(shape))
        for number in range(self._num_checkpoints):
            self._checkpoints[f"{kind}{index}_at{number}"] = like.new_zeros(shape)

    def update_conv_state(
        self,
        conv_states: Tensor,
        state_idx: int = 0,
        conv_kernel_size: int | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Take a pass's columns and return them after those of earlier passes.

        Args:
            conv_states: [batch, channels, seq].
            state_idx: number of the state within the layer.
            conv_kernel_size: columns that are held.
            **kwargs: not used.

        Returns:
            [batch, channels, held + seq]; before the first token padded to the held columns.
        """
        if not self.is_conv_states_initialized[state_idx]:
            self.lazy_initialization(conv_states, None, state_idx, conv_kernel_size)
        held = self.conv_states[state_idx]
        assert held is not None
        if self.has_previous_state[state_idx]:
            columns = torch.cat((held, conv_states), dim=-1)
        else:
            columns = nn.functional.pad(
                conv_states, (max(0, held.shape[-1] - conv_states.shape[-1]), 0)
            )
        held.copy_(columns[..., -held.shape[-1] :].detach())
        self.has_previous_state[state_idx] = True
        return columns

    def update_recurrent_state(
        self, recurrent_states: Tensor, state_idx: int = 0, **kwargs: Any
    ) -> Tensor:
        """Take the state after a pass; see `LinearAttentionLayer`."""
        state: Tensor = super().update_recurrent_state(recurrent_states.detach(), state_idx)
        return state

    def detach(self) -> None:
        """Let go of the gradients of a pass whose model wrote the states itself."""
        self.buffers = {name: x.detach() for name, x in self.states.items() if x.requires_grad}

    @torch.inference_mode(False)
    def select_streams(self, rows: Tensor) -> None:
        """Keep the given rows of the batch, in that order."""
        self.buffers = {
            name: x.index_select(0, rows.to(x.device)) for name, x in self.buffers.items()
        }

    def reset(self) -> None:
        """Free the tensors; the next pass allocates them again."""
        self.__init__(self.number_of_states, self._num_checkpoints)  # type: ignore[misc]


class RingAndStateLayer(StateLayer):
    """Hold the states of a layer that attends too, whose keys and values are in a ring.

    Args:
        ring: of the layer's attention.
        number_of_states, num_checkpoints: see `StateLayer`.
    """

    is_sliding = True

    def __init__(
        self, ring: RingLayer, number_of_states: int = 1, num_checkpoints: int = NUM_CHECKPOINTS
    ) -> None:
        super().__init__(number_of_states, num_checkpoints)
        self.ring = ring

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Take keys and values; see `RingLayer.update`."""
        return self.ring.update(key_states, value_states, *args, **kwargs)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Sizes for mask functions that are not asked; see `RingLayer`."""
        return self.ring.get_mask_sizes(query_length)

    def get_max_length(self) -> int:
        """Entries held at most."""
        return self.ring.get_max_length()

    def reset(self) -> None:
        """Free the states; the cache frees the ring."""
        self.__init__(self.ring, self.number_of_states, self._num_checkpoints)  # type: ignore[misc]


# transformers asks by class whether a layer attends, and its class of both owns plain keys.
CacheLayerMixin.register(RingAndStateLayer)
