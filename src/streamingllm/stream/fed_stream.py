"""Feed a stream: tokens, their logits, and the counts of what is cached."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from streamingllm.config import StreamConfig
from streamingllm.errors import InputError
from streamingllm.inputs import (
    HasModel,
    TokenBatch,
    check_tokens,
    model_of,
    sink_token_of,
    sink_token_rows,
    vocab_size_of,
    with_sink_token,
)
from streamingllm.integration.lora import LoraAdapter, check_adapter, using_adapter
from streamingllm.strategies import STRATEGIES, Strategy
from streamingllm.strategies.base import LogitsToKeep
from streamingllm.stream.generation import last_logits
from streamingllm.stream.token_tail import TokenTail


class FedStream:
    """Feed a text without end; the base of `Stream`, which generates, rewinds and saves too.

    Args:
        model: a causal language model of transformers, or what `load_model` returned.
        config: the tokens that stay cached, and the strategy.
        adapter: that the stream computes with.
    """

    def __init__(
        self,
        model: PreTrainedModel | HasModel,
        config: StreamConfig | None = None,
        *,
        adapter: LoraAdapter | None = None,
    ) -> None:
        self.model = model_of(model)
        check_adapter(adapter, self.model)
        self.adapter = adapter
        self.config = config or StreamConfig()
        self.metadata: dict[str, Any] = {}
        kind = STRATEGIES[self.config.strategy]
        self._strategy: Strategy = kind(self.model, with_sink_token(self.config, self.model))
        has_token = sink_token_of(self.model) is not None and not kind.places_sink_token
        self._num_hidden = int(has_token)
        self._logits: Tensor | None = None
        self._recent = TokenTail(remembered_tokens(self.config))
        self._is_single = True

    @property
    def num_seen_tokens(self) -> int:
        """Tokens fed so far; of the longest stream in a batch. A sink token does not count."""
        return max(0, self._strategy.num_seen_tokens - self._num_hidden)

    @property
    def num_cached_tokens(self) -> int:
        """Tokens whose keys and values the next query can see, without a sink token."""
        return max(0, self._strategy.num_cached_tokens - self._num_hidden)

    @property
    def cache_size(self) -> int:
        """Entries held per layer under `sinks`: n + m."""
        return self.config.cache_size

    @property
    def nbytes(self) -> int:
        """Bytes of the keys and values held; constant under `sinks` once the first token is fed."""
        return self._strategy.nbytes

    @property
    def rewind_nbytes(self) -> int:
        """Bytes of the rewind buffer, in addition to `nbytes`."""
        return self._strategy.cache_for("rewind_nbytes").rewind_nbytes

    @property
    def num_seen_tokens_per_stream(self) -> Tensor:
        """Tokens fed to each stream of the batch, int64, [batch]."""
        cache = self._strategy.cache_for("num_seen_tokens_per_stream")
        return (cache.num_seen_tokens_per_stream - self._num_hidden).clamp(min=0)

    @property
    def first_visible_position(self) -> int:
        """Stream position at which the window begins; sinks before it stay visible too."""
        first = self._strategy.cache_for("first_visible_position").first_visible_position
        return max(0, first - self._num_hidden)

    @property
    def next_logits(self) -> Tensor:
        """Logits of the next token, [vocab] or [batch, vocab].

        Raises:
            InputError: nothing has been fed yet.
        """
        if self._logits is None:
            raise InputError("the stream is empty: feed at least one token first")
        return self._logits[0] if self._is_single else self._logits

    def feed(
        self,
        ids: Tensor,
        *,
        attention_mask: Tensor | None = None,
        logits: Literal["all", "last", "none"] = "all",
    ) -> Tensor:
        """Read tokens, in chunks of `config.chunk_size`; a failed chunk leaves what came before it.

        Args:
            ids: token ids, int64, [seq] for one stream or [batch, seq].
            attention_mask: 0 at padding, [batch, seq], so that streams may differ in length.
            logits: which to return; "all" takes seq x vocab numbers of memory.

        Returns:
            [seq, vocab] or [batch, seq, vocab]; for "last" [vocab] or [batch, vocab]; for "none"
            an empty tensor.

        Raises:
            InputError: ids are empty, of a wrong shape or type, or out of the vocabulary.
        """
        batch = check_tokens(ids, attention_mask, vocab_size_of(self.model), self.model.device)
        self._begin(batch)
        logits_to_keep: LogitsToKeep = (
            "all" if logits == "all" or batch.valid is not None else "last"
        )
        parts = []
        for first in range(0, batch.ids.shape[1], self.config.chunk_size):
            columns = slice(first, first + self.config.chunk_size)
            valid = None if batch.valid is None else batch.valid[:, columns]
            part = self._feed_chunk(batch.ids[:, columns], valid, logits_to_keep)
            if logits == "all":
                parts.append(part)
        if logits == "none":
            return self.next_logits.new_empty(0)
        if logits == "last":
            return self.next_logits
        out = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        return out[0] if self._is_single else out

    def begin_turn(self) -> None:
        """Begin a turn, such as a message, with the next token that is fed.

        Under `StreamConfig(eviction="turn")` the window begins with a turn; else without effect.

        Raises:
            UnsupportedFeatureError: the strategy has no cache of sinks and a window.
        """
        self._strategy.cache_for("begin_turn").begin_turn()

    def _begin(self, batch: TokenBatch) -> None:
        """Fix the number of streams with the first tokens."""
        num_streams = self._recent.num_streams
        if num_streams == 0:
            self._feed_sink_token(len(batch.ids))
            self._recent.begin(len(batch.ids))
            self._is_single = batch.is_single
        elif len(batch.ids) != num_streams:
            raise InputError(
                f"ids has {len(batch.ids)} rows: this stream was begun with {num_streams}"
            )

    def _feed_sink_token(self, num_streams: int) -> None:
        rows = sink_token_rows(self.model, num_streams) if self._num_hidden else None
        if rows is not None and not self._strategy.num_seen_tokens:
            with using_adapter(self.adapter):
                self._strategy.step(rows, None, "last")

    def _feed_chunk(
        self, rows: Tensor, valid: Tensor | None, logits_to_keep: LogitsToKeep
    ) -> Tensor:
        check_adapter(self.adapter, self.model)
        with using_adapter(self.adapter):
            logits = self._strategy.step(rows, valid, logits_to_keep)
        self._recent.extend(rows, valid)
        is_last_only = logits_to_keep == "last"
        self._logits = last_logits(logits, valid, self._logits, is_last_only=is_last_only)
        return logits

    # What generation takes from a stream.

    @property
    def next_logits_of_rows(self) -> Tensor:
        """Logits of each stream's next token, [batch, vocab]."""
        assert self._logits is not None
        return self._logits

    @property
    def recent_ids_of_rows(self) -> list[list[int]]:
        """Last tokens of each stream, equally many."""
        return self._recent.common()

    def feed_tokens(self, tokens: Tensor, active: Tensor | None) -> None:
        """Feed one token, int64, [batch], to each stream where `active`, bool, [batch], is True."""
        valid = None if active is None else active[:, None]
        self._feed_chunk(tokens[:, None], valid, "last" if valid is None else "all")

    def _feed_last_again(self, has_tokens: Tensor) -> None:
        if not bool(has_tokens.any()):
            self._logits = None
            return
        rows = torch.tensor(self._recent.pop_last(), device=self.model.device)[:, None]
        valid = None if bool(has_tokens.all()) else has_tokens[:, None].to(rows.device)
        self._feed_chunk(rows, valid, "all")


def remembered_tokens(config: StreamConfig) -> int:
    """Return how many tokens of a stream are remembered."""
    return config.window_size + config.max_rewind_tokens + 1
