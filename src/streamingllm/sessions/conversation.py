"""A conversation without end: turns over a stream, taken back, branched, saved."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from streamingllm.errors import InputError
from streamingllm.finish_reason import FinishReason
from streamingllm.models import LanguageModel
from streamingllm.sessions.conversation_state import ConversationState
from streamingllm.sessions.system_prompt import DEFAULT_SYSTEM_PROMPT
from streamingllm.sessions.template_input import Messages, as_messages
from streamingllm.sessions.token_log import TokenLog
from streamingllm.sessions.transcript import ContentPart, Message, Transcript
from streamingllm.sessions.visibility import Visibility
from streamingllm.stream import Stream
from streamingllm.stream.sampling import GREEDY, SamplingParams
from streamingllm.stream.text import TextPieces

_ASSISTANT = "assistant"


@dataclass(frozen=True)
class Turn:
    """Texts of one turn, and the stream positions first..stop-1 where they stand."""

    user: str
    assistant: str
    first: int
    stop: int

    @classmethod
    def of(cls, messages: Sequence[Message]) -> Turn:
        """Return a turn of a transcript."""
        said: dict[bool, list[str]] = {True: [], False: []}
        for message in messages:
            said[message.role == _ASSISTANT].append(message.text)
        return cls(
            "\n".join(said[False]), "\n".join(said[True]), messages[0].first, messages[-1].stop
        )


class Conversation:
    """Talk with a model without end; it sees the system prompt and the last tokens.

    Messages and token ids are kept (some bytes a token), keys and values only of `cache_size`
    tokens and, for `rewind`, of `max_rewind_tokens` more.

    Args:
        lm: a model with a chat template.
        system_prompt: pinned: the stream's sinks are its tokens and those before it; "" for none.
        cache_size: tokens that are cached, the system prompt included.
        max_rewind_tokens: tokens that `rewind` can take back once others have been forgotten.
        state: what to go on from, as `fork` and `load` do; the settings above are then its own.

    Raises:
        ConfigError: the system prompt leaves no room in the cache.
        UnsupportedFeatureError: the model has no chat template, or none with a place for this.
    """

    def __init__(
        self,
        lm: LanguageModel,
        *,
        system_prompt: str = DEFAULT_SYSTEM_PROMPT,
        cache_size: int = 1024,
        max_rewind_tokens: int = 512,
        state: ConversationState | None = None,
    ) -> None:
        self.lm = lm
        self._state = state or ConversationState.begin(
            lm, system_prompt, cache_size, max_rewind_tokens
        )
        self._stop_token_ids = lm.eos_token_ids | self._state.template.end_token_ids
        self._pieces: TextPieces | None = None
        self._interrupted = False

    @property
    def system_prompt(self) -> str:
        """System prompt, pinned before the first turn."""
        return self._state.system_prompt

    @property
    def stream(self) -> Stream:
        """The stream that the model sees."""
        return self._state.stream

    @property
    def transcript(self) -> Transcript:
        """All messages, the system prompt first."""
        return self._state.transcript

    @property
    def token_log(self) -> TokenLog:
        """Ids of all tokens that the stream has seen."""
        return self._state.token_log

    @property
    def turns(self) -> list[Turn]:
        """Turns so far, made from the transcript."""
        return [Turn.of(self.transcript.turn(n)) for n in range(self.transcript.num_turns)]

    @property
    def finish_reason(self) -> FinishReason | None:
        """Finish reason of the last answer; None before the first."""
        if self._interrupted:
            return FinishReason.CANCELLED
        return None if self._pieces is None else self._pieces.finish_reason

    @property
    def visibility(self) -> Visibility:
        """Counts of visible and forgotten tokens and turns."""
        config, seen = self.stream.config, self.stream.num_seen_tokens
        return Visibility.of(
            self.transcript,
            num_seen_tokens=seen,
            num_pinned_tokens=config.num_sink_tokens,
            first_visible=seen - config.window_size,
        )

    def say(
        self,
        text: Messages,
        *,
        max_new_tokens: int = 512,
        sampling: SamplingParams = GREEDY,
        generator: torch.Generator | None = None,
        context: str = "",
    ) -> Iterator[str]:
        """Prefill what is said and generate the answer, piece by piece.

        However the answer ends, by itself, by `interrupt` or because no more of it is asked for,
        what has been said is a turn.

        Args:
            text: of the user, or messages of other roles as well.
            max_new_tokens: upper bound on the answer.
            sampling: how tokens are chosen.
            generator: source of randomness.
            context: read before the last message, in its turn; the transcript does not have it.

        Raises:
            InputError: there is nothing to say.
            UnsupportedFeatureError: the template takes no such messages here.
        """
        messages = as_messages(text)
        if not any(message.text for message in messages):
            raise InputError("text is empty; say at least one character")
        self._pieces, self._interrupted = None, False
        told = [*messages[:-1], _after(context, messages[-1])]
        first, ids = self.stream.num_seen_tokens, self._turn_ids(told)
        answer = ""
        try:
            if not self._prefill(ids):
                return
            tokens = self.stream.generate(
                max_new_tokens,
                sampling=sampling,
                stop_token_ids=self._stop_token_ids,
                generator=generator,
            )
            self._pieces = TextPieces(
                self._logged(tokens), self.lm, stop_token_ids=self._stop_token_ids
            )
            for piece in self._pieces:
                answer += piece
                yield piece
        finally:
            self._record(messages, answer, first, first + len(ids))

    def interrupt(self) -> None:
        """End the answer that is being generated; a signal handler may call this."""
        self._interrupted = True
        if self._pieces is not None:
            self._pieces.interrupt()

    def rewind(self, num_turns: int = 1) -> None:
        """Take back the last turns, as if they had never been.

        Raises:
            InputError: there are fewer turns.
            RewindError: the keys and values it takes are gone; `reread` can still do it.
        """
        first = self.num_tokens_before(num_turns)
        self.stream.rewind(self.stream.num_seen_tokens - first)
        self._go_back(num_turns, first)

    def reread(self, num_turns: int = 1) -> None:
        """Take back the last turns by prefilling all that came before them once more.

        It takes the memory of a second cache meanwhile. If it is interrupted nothing has changed.

        Raises:
            InputError: there are fewer turns.
        """
        first = self.num_tokens_before(num_turns)
        self._state.stream = self._state.refed(first)
        self._go_back(num_turns, first)

    def num_tokens_before(self, num_turns: int) -> int:
        """Return how many tokens `reread` would prefill.

        Raises:
            InputError: there are fewer turns.
        """
        so_far = self.transcript.num_turns
        if not 1 <= num_turns <= so_far:
            raise InputError(
                f"num_turns={num_turns} is not 1 to {so_far}, the turns so far; take back fewer"
                if so_far
                else f"num_turns={num_turns}: there are no turns yet; say something first"
            )
        return self.transcript.turn(-num_turns)[0].first

    def fork(self) -> Conversation:
        """Return a branch that goes its own way; it costs as much memory as the stream."""
        return Conversation(self.lm, state=self._state.fork())

    def save(self, path: str | Path) -> None:
        """Save to one file, whole or not at all; a file saved before grows by what is new.

        Raises:
            SnapshotError: the file cannot be written, is no saved conversation, or was saved by
                another writer since; it is as it was before.
        """
        self._state.save(Path(path))

    @classmethod
    def load(cls, lm: LanguageModel, path: str | Path) -> Conversation:
        """Return the conversation that `save` saved; its next answer is what it would have been.

        Raises:
            SnapshotError: the file is missing, damaged, of another model or no conversation.
        """
        return cls(lm, state=ConversationState.load(lm, Path(path)))

    def _turn_ids(self, text: Messages) -> Tensor:
        """Return what the stream is fed when this is said, up to the answer, int64, [seq]."""
        template = self._state.template
        if self.transcript.num_turns == 0:
            ids = template.first_turn_ids(text)
        else:
            last = self.transcript[-1]
            ids = template.next_turn_ids(
                text,
                last if last.role == _ASSISTANT else None,
                last_token_id=self.token_log.at(-1),
            )
        return torch.tensor(ids, dtype=torch.int64, device=self.lm.model.device)

    def _prefill(self, ids: Tensor) -> bool:
        """Feed ids; return whether it was done without an interruption."""
        for chunk in ids.split(self.stream.config.chunk_size):
            if self._interrupted:
                return False
            self._state.feed(chunk)
        return True

    def _logged(self, tokens: Iterable[int]) -> Iterator[int]:
        for token in tokens:
            self.token_log.append(token)
            yield token

    def _record(self, messages: Sequence[Message], answer: str, first: int, stop: int) -> None:
        """Append what was said since `first`; its prompt ends at `stop` if all of it was fed."""
        seen = self.stream.num_seen_tokens
        if seen == first:
            return
        stop, begins_turn = min(stop, seen), True
        for message in messages:
            # The marks of a template join messages, so the first one stands for all their tokens.
            place = replace(message, first=first, stop=stop, begins_turn=begins_turn)
            self.transcript.append(place)
            first, begins_turn = stop, False
        if self._pieces is not None:
            self.transcript.append(
                replace(Message.of_text(_ASSISTANT, answer), first=stop, stop=seen)
            )

    def _go_back(self, num_turns: int, first: int) -> None:
        self._state.go_back(self.transcript.turn_start(-num_turns), first)


def _after(context: str, message: Message) -> Message:
    return replace(message, parts=(ContentPart(context), *message.parts)) if context else message
