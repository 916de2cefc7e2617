"""Stream of tokens without end, or a batch of them: feed, generate, rewind, fork, save."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import deepcopy
from pathlib import Path

import torch
from transformers import PreTrainedModel

from streamingllm.errors import InputError, RewindError
from streamingllm.inputs import (
    HasModel,
    model_of,
)
from streamingllm.integration.lora import LoraAdapter, check_same_adapter, fingerprint_of
from streamingllm.stream.fed_stream import FedStream, remembered_tokens
from streamingllm.stream.generation import generate_rows
from streamingllm.stream.sampling import GREEDY, SamplingParams
from streamingllm.stream.stream_snapshot import StreamSnapshot
from streamingllm.stream.token_tail import TokenTail


class Stream(FedStream):
    """Feed and generate a text without end.

    Args:
        model: a causal language model of transformers, or what `load_model` returned.
        config: the tokens that stay cached, and the strategy.
        adapter: of `LanguageModel.load_adapter`, that the stream computes with. Streams of one
            model may have different ones. A decode step with an adapter runs uncompiled.

    Attributes:
        metadata: JSON-able facts that belong to the stream, saved and restored with it.

    Raises:
        UnsupportedModelError: the model cannot stream; the message says why.
        InputError: the adapter belongs to another model.
    """

    def generate(
        self,
        max_new_tokens: int | None = None,
        *,
        sampling: SamplingParams = GREEDY,
        stop_token_ids: Iterable[int] = (),
        generator: torch.Generator | None = None,
    ) -> Iterator[int]:
        """Generate tokens one by one; each is part of the stream when it is yielded.

        Args:
            max_new_tokens: upper bound on the tokens, instead of that of `sampling`; None is
                endless.
            sampling: how tokens are chosen.
            stop_token_ids: the stream ends after one of these, which is yielded too; in addition to
                those of `sampling`.
            generator: source of randomness; None for one with the seed of `sampling`.

        Raises:
            InputError: nothing has been fed yet, `max_new_tokens` is no whole number >= 0, or the
                stream is a batch.
            UnsupportedFeatureError: `sampling` names what needs a tokenizer or an engine.
        """
        if not self._is_single:
            raise InputError("stream: is a batch of streams; use generate_batch")
        rows = self.generate_batch(
            max_new_tokens, sampling=sampling, stop_token_ids=stop_token_ids, generator=generator
        )
        return (token for (token,) in rows if token is not None)

    def generate_batch(
        self,
        max_new_tokens: int | None = None,
        *,
        sampling: SamplingParams = GREEDY,
        stop_token_ids: Iterable[int] = (),
        generator: torch.Generator | None = None,
    ) -> Iterator[list[int | None]]:
        """Generate one token after the other for each stream of a batch; see `generate`.

        Yields:
            a token for each stream; None for streams that have ended.
        """
        _ = self.next_logits
        return generate_rows(
            self,
            max_new_tokens,
            sampling=sampling,
            window_size=self.config.window_size,
            stop_token_ids=stop_token_ids,
            generator=generator,
        )

    def rewind(self, num_tokens: int) -> None:
        """Take back the last tokens of every stream, as if they had never been fed.

        Before anything is evicted a stream goes back to its start; afterwards
        `config.max_rewind_tokens`, whose keys and values are held aside (`rewind_nbytes`).

        Raises:
            RewindError: more than was fed or can come back.
        """
        cache = self._strategy.cache_for("rewind")
        if num_tokens == 0:
            return
        cache.check_rewind(num_tokens)
        seen = self.num_seen_tokens_per_stream
        if num_tokens > int(seen.min()):
            raise RewindError(f"num_tokens={num_tokens}: only {int(seen.min())} have been fed")
        remains = seen - num_tokens
        # Going on needs the logits of the last token that stays, so that one is fed again.
        again = (remains > 0).long()
        cache.rewind(num_tokens + again, fed_again=again)
        self._recent.take_back(num_tokens)
        self._feed_last_again(remains > 0)

    def compile(self, *, wait: bool = False, cached_only: bool = False) -> bool:
        """Compile the decode step of this stream and its forks; tell whether it is compiled now.

        A step that was compiled before, for this model on this machine, is loaded from the cache
        folder. Otherwise a process of its own takes up to a minute. Until then steps run
        uncompiled. For a GPU nothing is kept: it is compiled in this process before this returns.

        Args:
            wait: return only when it is done.
            cached_only: load what was compiled before, but compile nothing.

        Raises:
            InputError: nothing has been fed yet.
        """
        _ = self.next_logits
        if self.adapter is not None:
            return False
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
            raise InputError(f"position={position} has passed; choose {seen} or more")
        if int(self.num_seen_tokens_per_stream.min()) < self.cache_size:
            raise InputError(
                f"position={position} needs a full cache, which has {seen} of {self.cache_size} "
                "tokens; feed more first"
            )
        cache.positions.skip_to(position + self._num_hidden)

    def fork(self) -> Stream:
        """Return an independent copy that costs as much memory as this stream."""
        other = Stream(self.model, self.config, adapter=self.adapter)
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
        state = StreamSnapshot(
            config=self.config,
            cache=self._strategy.cache_for("snapshot").export_state(),
            next_logits=self._logits,
            token_tail=self._recent.to_lists(),
            is_single=self._is_single,
            metadata=self.metadata,
            adapter=fingerprint_of(self.adapter),
        )
        state.write(Path(path), self.model)

    @classmethod
    def restore(
        cls,
        model: PreTrainedModel | HasModel,
        path: str | Path,
        *,
        adapter: LoraAdapter | None = None,
    ) -> Stream:
        """Return the stream that `snapshot` saved; its next logits are bit-identical.

        Raises:
            SnapshotError: the file is missing, damaged, or of another model or adapter.
        """
        state = StreamSnapshot.read(Path(path), model_of(model))
        check_same_adapter(str(path), state.adapter, fingerprint_of(adapter))
        stream = cls(model, state.config, adapter=adapter)
        stream._strategy.cache_for("restore").import_state(state.cache)
        stream._logits = state.next_logits
        stream._recent = TokenTail(remembered_tokens(state.config), state.token_tail)
        stream._is_single = state.is_single
        stream.metadata = state.metadata
        return stream
