"""Dense attention: every token stays cached, until memory or the trained length ends."""

from __future__ import annotations

from copy import deepcopy

from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from streamingllm.config import StreamConfig
from streamingllm.errors import InputError, UnsupportedFeatureError
from streamingllm.strategies.base import LogitsToKeep, Strategy, run_model


class DenseStrategy(Strategy):
    """Run the model as it comes, with transformers' growing cache (paper, figure 1a)."""

    name = "dense"

    def __init__(self, model: PreTrainedModel, config: StreamConfig) -> None:
        self.model = model
        self.config = config
        self.cache = DynamicCache(config=model.config)

    @property
    def num_seen_tokens(self) -> int:
        """Tokens fed so far."""
        return int(self.cache.get_seq_length())

    @property
    def num_cached_tokens(self) -> int:
        """All tokens fed so far."""
        return self.num_seen_tokens

    @property
    def nbytes(self) -> int:
        """Bytes of the keys and values, growing with the text."""
        cached = (getattr(x, name, None) for x in self.cache.layers for name in ("keys", "values"))
        return sum(tensor.nbytes for tensor in cached if isinstance(tensor, Tensor))

    def fork(self) -> DenseStrategy:
        """Return an independent copy."""
        other = type(self)(self.model, self.config)
        other.cache = deepcopy(self.cache)
        return other

    def step(self, ids: Tensor, valid: Tensor | None, logits_to_keep: LogitsToKeep) -> Tensor:
        """Feed ids [batch, seq] and return logits.

        Raises:
            InputError: the model has learned positions and no more of them.
        """
        refuse_padding(self.name, valid)
        try:
            return run_model(self.model, ids, logits_to_keep, cache=self.cache)
        except IndexError as error:
            # Learned positions are a table, and the text has come to its end.
            raise InputError(
                f"ids: strategy {self.name!r} of {self.model.config.model_type} ends at its last "
                f"learned position, after {self.num_seen_tokens} tokens"
            ) from error


def refuse_padding(strategy: str, valid: Tensor | None) -> None:
    """Refuse streams of different lengths.

    Raises:
        UnsupportedFeatureError: a token is padding.
    """
    if valid is not None:
        raise UnsupportedFeatureError(
            f"attention_mask: strategy {strategy!r} takes streams of equal length; only 'sinks' "
            "and 'window' take padding"
        )
