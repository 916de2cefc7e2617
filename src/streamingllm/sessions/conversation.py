"""A conversation without end: turns over a stream, taken back, branched, saved."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from streamingllm.config import StreamConfig
from streamingllm.errors import ConfigError, InputError, SnapshotError
from streamingllm.models import LanguageModel
from streamingllm.sessions.system_prompt import DEFAULT_SYSTEM_PROMPT
from streamingllm.sessions.template import ChatTemplate
from streamingllm.sessions.visibility import Visibility
from streamingllm.stream import Stream
from streamingllm.stream.sampling import GREEDY, Sampling
from streamingllm.stream.text import FinishReason, TextPieces

_MIN_SINK_TOKENS = 4


@dataclass(frozen=True)
class Turn:
    """What was said once, and the stream positions first..stop-1 where it stands."""

    user: str
    assistant: str
    first: int
    stop: int


class Conversation:
    """Talk with a model for as long as you like; it sees the system prompt and the last tokens.

    The texts of all turns and the ids of all tokens are kept (a few bytes a token), keys and values
    only of `cache_size` tokens and, for `rewind`, of `max_rewind_tokens` more.

    Args:
        lm: a model with a chat template.
        system_prompt: pinned: its tokens are the stream's sinks; "" for none.
        cache_size: tokens whose keys and values are held, the system prompt included.
        max_rewind_tokens: tokens that `rewind` can take back once others have been forgotten.

    Attributes:
        turns: what has been said.

    Raises:
        ConfigError: the system prompt leaves no room in the cache.
        UnsupportedFeatureError: the model has no chat template.
    """

    def __init__(
        self,
        lm: LanguageModel,
        *,
        system_prompt: str = DEFAULT_SYSTEM_PROMPT,
        cache_size: int = 1024,
        max_rewind_tokens: int = 512,
    ) -> None:
        template = ChatTemplate(lm, system_prompt)
        opening = lm.encode(template.opening, add_special_tokens=False)
        pinned = max(_MIN_SINK_TOKENS, len(opening))
        if pinned >= cache_size:
            raise ConfigError(
                f"cache_size={cache_size}: must be greater than the {pinned} tokens of the system "
                "prompt, which are pinned"
            )
        config = StreamConfig.with_cache_size(
            cache_size, pinned, max_rewind_tokens=max_rewind_tokens
        )
        self._setup(lm, system_prompt, template, Stream(lm.model, config))
        if len(opening):
            self._read(opening)

    def _setup(
        self, lm: LanguageModel, system_prompt: str, template: ChatTemplate, stream: Stream
    ) -> None:
        self.lm = lm
        self.system_prompt = system_prompt
        self.stream = stream
        self.turns: list[Turn] = []
        self._template = template
        self._ids = array("I")
        self._pieces: TextPieces | None = None
        self._interrupted = False

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why the last answer has ended; None before the first."""
        if self._interrupted:
            return "interrupted"
        return None if self._pieces is None else self._pieces.finish_reason

    @property
    def visibility(self) -> Visibility:
        """What the model still sees."""
        seen = self.stream.num_seen_tokens
        oldest = seen - self.stream.config.window_size
        forgotten = sum(turn.stop <= oldest for turn in self.turns)
        first_visible = self.turns[forgotten : forgotten + 1]
        return Visibility(
            num_seen_tokens=seen,
            num_visible_tokens=self.stream.num_cached_tokens,
            num_pinned_tokens=self.stream.config.num_sink_tokens,
            num_turns=len(self.turns),
            num_forgotten_turns=forgotten,
            is_cut=any(turn.first < oldest for turn in first_visible),
        )

    def say(
        self,
        text: str,
        *,
        max_new_tokens: int = 512,
        sampling: Sampling = GREEDY,
        generator: torch.Generator | None = None,
    ) -> Iterator[str]:
        """Read what the user says and write the answer, piece by piece.

        However the answer ends, by itself, by `interrupt` or because no more of it is asked for,
        what has been said is a turn.

        Raises:
            InputError: there is nothing to say.
        """
        if not text:
            raise InputError("text is empty: must have at least one character")
        self._pieces, self._interrupted = None, False
        first, answer = self.stream.num_seen_tokens, ""
        try:
            if not self._read(self._turn_ids(text)):
                return
            tokens = self.stream.generate(
                max_new_tokens,
                sampling=sampling,
                stop_token_ids=self.lm.eos_token_ids,
                generator=generator,
            )
            self._pieces = TextPieces(self._recorded(tokens), self.lm)
            for piece in self._pieces:
                answer += piece
                yield piece
        finally:
            if self.stream.num_seen_tokens > first:
                self.turns.append(Turn(text, answer, first, self.stream.num_seen_tokens))

    def interrupt(self) -> None:
        """End the answer that is being written; a signal handler may call this."""
        self._interrupted = True
        if self._pieces is not None:
            self._pieces.interrupt()

    def rewind(self, num_turns: int = 1) -> None:
        """Take back the last turns, as if they had never been.

        Raises:
            InputError: there are not so many turns.
            RewindError: the keys and values it takes are gone; `reread` can still do it.
        """
        first = self._first_of_last(num_turns)
        self.stream.rewind(self.stream.num_seen_tokens - first)
        self._forget_from(first, num_turns)

    def reread(self, num_turns: int = 1) -> None:
        """Take back the last turns by reading all that came before them once more.

        It takes as long as reading takes, and the memory of a second cache meanwhile. If it is
        interrupted nothing has changed.

        Raises:
            InputError: there are not so many turns.
        """
        first = self._first_of_last(num_turns)
        stream = Stream(self.lm.model, self.stream.config)
        if first:
            stream.feed(self._tensor(self._ids[:first]), logits="none")
        self.stream = stream
        self._forget_from(first, num_turns)

    def num_tokens_before(self, num_turns: int) -> int:
        """Return how many tokens `reread` would read.

        Raises:
            InputError: there are not so many turns.
        """
        return self._first_of_last(num_turns)

    def fork(self) -> Conversation:
        """Return a branch that goes its own way; it costs as much memory as the stream."""
        other = Conversation.__new__(Conversation)
        other._setup(self.lm, self.system_prompt, self._template, self.stream.fork())
        other.turns = list(self.turns)
        other._ids = array("I", self._ids)
        return other

    def save(self, path: str | Path) -> None:
        """Save the turns and the stream to one file, whole or not at all.

        Raises:
            SnapshotError: the file cannot be written; one that was there before is untouched.
        """
        self.stream.metadata["conversation"] = {
            "system_prompt": self.system_prompt,
            "turns": [asdict(turn) for turn in self.turns],
            "ids": self._ids.tolist(),
        }
        try:
            self.stream.snapshot(path)
        finally:
            del self.stream.metadata["conversation"]

    @classmethod
    def load(cls, lm: LanguageModel, path: str | Path) -> Conversation:
        """Return the conversation that `save` saved; its next answer is what it would have been.

        Raises:
            SnapshotError: the file is missing, damaged, of another model or no conversation.
        """
        stream = Stream.restore(lm.model, path)
        saved = stream.metadata.pop("conversation", None)
        if saved is None:
            raise SnapshotError(f"{path}: is a stream without a conversation")
        conversation = cls.__new__(cls)
        system_prompt = saved["system_prompt"]
        conversation._setup(lm, system_prompt, ChatTemplate(lm, system_prompt), stream)
        conversation.turns = [Turn(**turn) for turn in saved["turns"]]
        conversation._ids = array("I", saved["ids"])
        return conversation

    def _turn_ids(self, text: str) -> Tensor:
        """Return what the model reads when the user says `text`, up to the answer."""
        if not self.turns:
            return self.lm.encode(self._template.first_turn(text), add_special_tokens=False)
        ids = self.lm.encode(self._template.next_turn(text), add_special_tokens=False)
        # An answer that ended by itself has been closed by its end token.
        is_closed = self._ids[-1] in self.lm.eos_token_ids and self._ids[-1] == int(ids[0])
        return ids[1:] if is_closed else ids

    def _read(self, ids: Tensor) -> bool:
        """Feed ids; return whether it was done without an interruption."""
        for chunk in ids.split(self.stream.config.chunk_size):
            if self._interrupted:
                return False
            self.stream.feed(chunk, logits="none")
            self._ids.extend(chunk.tolist())
        return True

    def _recorded(self, tokens: Iterable[int]) -> Iterator[int]:
        for token in tokens:
            self._ids.append(token)
            yield token

    def _first_of_last(self, num_turns: int) -> int:
        if not 1 <= num_turns <= len(self.turns):
            raise InputError(
                f"num_turns={num_turns}: must be 1 to {len(self.turns)}, the turns so far"
                if self.turns
                else f"num_turns={num_turns}: there are no turns yet"
            )
        return self.turns[-num_turns].first

    def _forget_from(self, first: int, num_turns: int) -> None:
        del self.turns[-num_turns:]
        del self._ids[first:]

    def _tensor(self, ids: array[int]) -> Tensor:
        return torch.tensor(ids.tolist(), dtype=torch.int64, device=self.lm.model.device)
