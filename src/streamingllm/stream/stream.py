"""Stream of tokens without end, or a batch of them: feed, generate, rewind, fork, save."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import deepcopy
from itertools import count
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from streamingllm.config import StreamConfig
from streamingllm.errors import (
    InputError,
    RewindError,
)
from streamingllm.inputs import (
    HasModel,
    TokenBatch,
    check_integer,
    check_tokens,
    model_of,
    vocab_size_of,
)
from streamingllm.kernels.threads import one_thread
from streamingllm.strategies import STRATEGIES, Strategy
from streamingllm.strategies.base import LogitsToKeep
from streamingllm.stream.next_token import TokenChooser
from streamingllm.stream.sampling import GREEDY, SamplingParams
from streamingllm.stream.state import StreamState
from streamingllm.stream.token_tail import TokenTail


class Stream:
    """Feed and generate a text without end.

    Args:
        model: a causal language model of transformers, or what `load_model` returned.
        config: the tokens that stay cached, and the strategy.

    Attributes:
        metadata: JSON-able facts that belong to the stream, saved and restored with it.

    Raises:
        UnsupportedModelError: the model cannot stream; the message says why.
    """

    def __init__(
        self, model: PreTrainedModel | HasModel, config: StreamConfig | None = None
    ) -> None:
        self.model = model_of(model)
        self.config = config or StreamConfig()
        self.metadata: dict[str, Any] = {}
        self._strategy: Strategy = STRATEGIES[self.config.strategy](self.model, self.config)
        self._logits: Tensor | None = None
        self._recent = TokenTail(_remembered(self.config))
        self._is_single = True

    @property
    def num_seen_tokens(self) -> int:
        """Tokens fed so far; of the longest stream in a batch."""
        return self._strategy.num_seen_tokens

    @property
    def num_cached_tokens(self) -> int:
        """Tokens whose keys and values the next query can see."""
        return self._strategy.num_cached_tokens

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
        return self._strategy.cache_for("num_seen_tokens_per_stream").num_seen_tokens_per_stream

    @property
    def first_visible_position(self) -> int:
        """Stream position at which the window begins; sinks before it stay visible too."""
        return self._strategy.cache_for("first_visible_position").first_visible_position

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

    def generate(
        self,
        max_new_tokens: int | None,
        *,
        sampling: SamplingParams = GREEDY,
        stop_token_ids: Iterable[int] = (),
        generator: torch.Generator | None = None,
    ) -> Iterator[Any]:
        """Write tokens one by one; each has become part of the stream when it is yielded.

        Args:
            max_new_tokens: upper bound on the tokens written, instead of that of `sampling`; None
                is endless.
            sampling: how tokens are chosen.
            stop_token_ids: a stream ends after one of these (it is yielded too), in addition to
                those of `sampling`.
            generator: source of randomness; None for one with the seed of `sampling`.

        Yields:
            an int; for a batch int64 [batch], -1 for streams that have ended.

        Raises:
            InputError: nothing has been fed yet, or `max_new_tokens` is negative.
            UnsupportedFeatureError: `sampling` names what needs a tokenizer or an engine.
        """
        if max_new_tokens is not None and max_new_tokens < 0:
            raise InputError(f"max_new_tokens={max_new_tokens}: must be a whole number >= 0")
        sampling.check_tokens_only()
        _ = self.next_logits
        device = self.model.device
        stop_ids = sorted({*stop_token_ids, *sampling.stop_token_ids})
        stops = torch.tensor(stop_ids, dtype=torch.int64, device=device)
        if generator is None and sampling.seed is not None:
            generator = torch.Generator(device).manual_seed(sampling.seed)
        chooser = TokenChooser(sampling, self.config.window_size, generator)
        return self._generate(max_new_tokens, chooser, stops)

    def rewind(self, num_tokens: int) -> None:
        """Take back the last tokens of every stream, as if they had never been fed.

        Before anything is evicted a stream goes back to its start; afterwards
        `config.max_rewind_tokens`, whose keys and values are held aside (`rewind_nbytes`).

        Raises:
            RewindError: more than was fed or can come back.
        """
        cache = self._strategy.cache_for("rewind")
        check_integer("num_tokens", num_tokens, 0, RewindError)
        if num_tokens == 0:
            return
        seen = cache.num_seen_tokens_per_stream
        if num_tokens > int(seen.min()):
            raise RewindError(
                f"num_tokens={num_tokens}: only {int(seen.min())} tokens have been fed"
            )
        most = min(cache.max_rewind_now)
        if num_tokens > most:
            raise RewindError(
                f"num_tokens={num_tokens}: this stream goes back at most {most} tokens now; "
                f"set max_rewind_tokens={self.config.max_rewind_tokens} higher"
            )
        remains = seen - num_tokens
        # Going on needs the logits of the last token that stays, so that one is fed again.
        again = (remains > 0).long()
        cache.rewind(num_tokens + again, fed_again=again)
        self._recent.take_back(num_tokens)
        self._feed_last_again(remains > 0)

    def compile(self, *, wait: bool = False, cached_only: bool = False) -> bool:
        """Compile the decode step of this stream and its forks; tell whether it is compiled now.

        A step that was compiled before, for this model on this machine, is loaded from the cache
        folder; otherwise a process of its own takes up to a minute, and until then steps run
        uncompiled. For a GPU nothing is kept: it is compiled in this process before this returns.

        Args:
            wait: return only when it is done.
            cached_only: load what was compiled before, but compile nothing.

        Raises:
            InputError: nothing has been fed yet.
        """
        _ = self.next_logits
        return self._strategy.compile(wait=wait, cached_only=cached_only)

    @property
    def is_compiled(self) -> bool:
        """Return whether steps run compiled now."""
        return self._strategy.is_compiled

    @property
    def is_captured(self) -> bool:
        """Return whether steps are replayed from CUDA graphs, which begins after two steps."""
        return self._strategy.is_captured

    def skip_to(self, position: int) -> None:
        """Set the stream position forward, as if tokens had passed; the cache stays as it is.

        What follows takes the same time as in a stream of that age, which is what this is for.

        Raises:
            InputError: nothing has been fed yet, or the position is in the past.
        """
        _ = self.next_logits
        cache = self._strategy.cache_for("skip_to")
        seen = self.num_seen_tokens
        if position < seen:
            raise InputError(f"position={position}: must be at least {seen}")
        if int(cache.num_seen_tokens_per_stream.min()) < self.cache_size:
            raise InputError(
                f"position={position}: the cache must be full first, {seen} of {self.cache_size} "
                "tokens have been fed"
            )
        cache.positions.skip_to(position)

    def fork(self) -> Stream:
        """Return an independent copy that costs as much memory as this stream."""
        other = Stream(self.model, self.config)
        other._strategy = self._strategy.fork()
        other.metadata = deepcopy(self.metadata)
        other._logits = None if self._logits is None else self._logits.clone()
        other._recent = self._recent.copy()
        other._is_single = self._is_single
        return other

    def snapshot(self, path: str | Path) -> None:
        """Save the stream to a safetensors file, whole or not at all.

        Raises:
            SnapshotError: the file cannot be written; one that was there before is untouched.
        """
        state = StreamState(
            config=self.config,
            cache=self._strategy.cache_for("snapshot").export_state(),
            next_logits=self._logits,
            token_tail=self._recent.to_lists(),
            is_single=self._is_single,
            metadata=self.metadata,
        )
        state.write(Path(path), self.model)

    @classmethod
    def restore(cls, model: PreTrainedModel | HasModel, path: str | Path) -> Stream:
        """Return the stream that `snapshot` saved; its next logits are bit-identical.

        Raises:
            SnapshotError: the file is missing, damaged, or of another model.
        """
        state = StreamState.read(Path(path), model_of(model))
        stream = cls(model, state.config)
        stream._strategy.cache_for("restore").import_state(state.cache)
        stream._logits = state.next_logits
        stream._recent = TokenTail(_remembered(state.config), state.token_tail)
        stream._is_single = state.is_single
        stream.metadata = state.metadata
        return stream

    def _begin(self, batch: TokenBatch) -> None:
        """Fix the number of streams with the first tokens."""
        num_streams = self._recent.num_streams
        if num_streams == 0:
            self._recent.begin(len(batch.ids))
            self._is_single = batch.is_single
        elif len(batch.ids) != num_streams:
            raise InputError(
                f"ids has {len(batch.ids)} rows: this stream was begun with {num_streams}"
            )

    def _feed_chunk(
        self, rows: Tensor, valid: Tensor | None, logits_to_keep: LogitsToKeep
    ) -> Tensor:
        logits = self._strategy.step(rows, valid, logits_to_keep)
        self._recent.extend(rows, valid)
        self._logits = self._last_logits(logits, valid, logits_to_keep)
        return logits

    def _last_logits(
        self, logits: Tensor, valid: Tensor | None, logits_to_keep: LogitsToKeep
    ) -> Tensor:
        """Return the logits after each stream's last token, [batch, vocab], for nobody else."""
        if valid is None:
            if logits_to_keep == "last" and not logits.is_inference():
                return logits[:, -1]
            with one_thread():
                return logits[:, -1].clone()
        columns = torch.arange(valid.shape[1], device=valid.device)
        last = torch.where(valid, columns, -1).max(dim=1).values
        rows = torch.arange(len(valid), device=valid.device)
        fresh = logits[rows, last.clamp(min=0)]
        if self._logits is None:
            return fresh.clone()
        return torch.where((last >= 0)[:, None], fresh, self._logits)

    def _feed_last_again(self, has_tokens: Tensor) -> None:
        if not bool(has_tokens.any()):
            self._logits = None
            return
        rows = torch.tensor(self._recent.pop_last(), device=self.model.device)[:, None]
        valid = None if bool(has_tokens.all()) else has_tokens[:, None].to(rows.device)
        self._feed_chunk(rows, valid, "all")

    def _generate(
        self, max_new_tokens: int | None, chooser: TokenChooser, stops: Tensor
    ) -> Iterator[Any]:
        assert self._logits is not None
        active = torch.ones(len(self._logits), dtype=torch.bool, device=self._logits.device)
        valid: Tensor | None = None  # until a stream ends
        for _ in count() if max_new_tokens is None else range(max_new_tokens):
            recent = self._recent.common() if chooser.params.reads_recent else ()
            token = chooser.choose(self._logits, recent)
            chooser.append(token)
            self._feed_chunk(token[:, None], valid, "all" if valid is not None else "last")
            yield int(token[0]) if self._is_single else token.masked_fill(~active, -1)
            if len(stops) == 0:
                continue
            active = active & ~torch.isin(token, stops)
            if not bool(active.any()):
                return
            valid = None if bool(active.all()) else active[:, None]


def _remembered(config: StreamConfig) -> int:
    """Return how many tokens of a stream are remembered."""
    return config.window_size + config.max_rewind_tokens + 1
