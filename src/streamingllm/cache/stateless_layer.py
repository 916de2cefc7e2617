"""A layer of a hybrid model that keeps nothing between passes, such as experts alone."""

from __future__ import annotations

from torch import Tensor


class StatelessLayer:
    """Stand in a cache for a layer that neither attends nor carries a state.

    transformers has such a class since 5.23, which is taken instead. The members are those that the
    `Cache` of earlier releases reads.
    """

    supports_early_init = False
    is_compileable = True
    is_croppable = True
    is_initialized = True
    is_sliding = False
    keys: Tensor | None = None
    values: Tensor | None = None

    def offload(self) -> None:
        """Do nothing: there is nothing to move."""

    def prefetch(self) -> None:
        """Do nothing: there is nothing to move."""

    def reset(self) -> None:
        """Do nothing: there is nothing to forget."""

    def crop(self, tokens_to_remove: int) -> None:
        """Do nothing: there is nothing to forget."""

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Do nothing: there is nothing to reorder."""

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Do nothing: there is nothing to repeat."""

    def batch_select_indices(self, indices: Tensor) -> None:
        """Do nothing: there is nothing to select."""

    def get_max_length(self) -> int:
        """Return -1: there is no greatest length."""
        return -1
