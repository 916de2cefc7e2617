"""State of a conversation, apart from its model."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from uuid import uuid4

import torch
from torch import Tensor

from streamingllm.config import StreamConfig
from streamingllm.errors import ConfigError, InputError, SnapshotError
from streamingllm.models import LanguageModel
from streamingllm.sessions.conversation_file import (
    SavedState,
    load_session,
    save_session,
    temporary_file,
)
from streamingllm.sessions.store import Snapshot
from streamingllm.sessions.template import ChatTemplate
from streamingllm.sessions.token_log import TokenLog
from streamingllm.sessions.transcript import Message, Transcript
from streamingllm.stream import Stream

_MIN_SINK_TOKENS = 4
_SYSTEM_PROMPT = "system_prompt"


@dataclass
class ConversationState:
    """Hold a stream with the transcript and the token log of what it was fed.

    Args:
        system_prompt: of the conversation.
        template: with that system prompt.
        stream: which has seen the opening of the template at least.
        transcript: what was said.
        token_log: ids of all tokens that the stream has seen.
        session_id: by which a file knows the conversation.
        saved: what a file holds of it.
    """

    system_prompt: str
    template: ChatTemplate
    stream: Stream
    transcript: Transcript = field(default_factory=Transcript)
    token_log: TokenLog = field(default_factory=TokenLog)
    session_id: str = field(default_factory=lambda: f"conv_{uuid4().hex}")
    saved: SavedState | None = None

    @classmethod
    def begin(
        cls, lm: LanguageModel, system_prompt: str, cache_size: int, max_rewind_tokens: int
    ) -> ConversationState:
        """Return a conversation whose stream has seen the opening, which it pins.

        Raises:
            ConfigError: the opening leaves no room in the cache.
            UnsupportedFeatureError: the model has no chat template for this.
        """
        template = ChatTemplate(lm, system_prompt)
        opening = template.opening_ids()
        pinned = max(_MIN_SINK_TOKENS, len(opening))
        if pinned >= cache_size:
            raise ConfigError(
                f"cache_size={cache_size} leaves no room beside the {pinned} tokens of the system "
                "prompt, which are pinned; raise cache_size or shorten the prompt"
            )
        config = StreamConfig.with_cache_size(
            cache_size, pinned, max_rewind_tokens=max_rewind_tokens
        )
        state = cls(system_prompt, template, Stream(lm.model, config))
        if opening:
            state.feed(torch.tensor(opening, dtype=torch.int64, device=lm.model.device))
        if system_prompt:
            said = Message.of_text("system", system_prompt)
            state.transcript.append(replace(said, stop=len(opening)))
        return state

    def feed(self, ids: Tensor) -> None:
        """Prefill token ids, int64, [seq], and log them."""
        self.stream.feed(ids, logits="none")
        self.token_log.extend(ids.tolist())

    def fork(self) -> ConversationState:
        """Return a conversation that shares the past and goes its own way."""
        return ConversationState(
            self.system_prompt,
            self.template,
            self.stream.fork(),
            self.transcript.fork(),
            self.token_log.fork(),
        )

    def go_back(self, num_messages: int, num_tokens: int) -> None:
        """Forget messages and ids that a stream has taken back."""
        self.transcript.truncate(num_messages)
        self.token_log.truncate(num_tokens)
        if self.saved is not None:
            self.saved = self.saved.after_rewind(num_messages, num_tokens)

    def refed(self, num_tokens: int) -> Stream:
        """Return a new stream that has been fed the first tokens."""
        stream = Stream(self.stream.model, self.stream.config)
        _feed_log(stream, self.token_log, 0, num_tokens)
        return stream

    def save(self, path: Path) -> None:
        """Write what a file does not hold yet, and a snapshot of the stream."""
        with temporary_file(path, path.parent) as file:
            self.stream.snapshot(file)
            snapshot = Snapshot(self.stream.num_seen_tokens, file.read_bytes())
        self.saved = save_session(
            path,
            self.session_id,
            {_SYSTEM_PROMPT: self.system_prompt},
            self.transcript,
            self.token_log,
            snapshot,
            self.saved,
        )

    @classmethod
    def load(cls, lm: LanguageModel, path: Path) -> ConversationState:
        """Return the conversation that `save` wrote."""
        session, snapshot, saved = load_session(path)
        system_prompt = session.summary.metadata.get(_SYSTEM_PROMPT)
        if not isinstance(system_prompt, str):
            raise SnapshotError(f"{path}: is no conversation; name a file that /save wrote")
        with temporary_file(path) as file:
            file.write_bytes(snapshot.content)
            stream = Stream.restore(lm.model, file)
        if stream.num_seen_tokens != snapshot.num_tokens:
            raise SnapshotError(
                f"{path}: is damaged (its snapshot has seen {stream.num_seen_tokens} tokens, not "
                f"{snapshot.num_tokens}); restore a backup"
            )
        try:
            _feed_log(stream, session.token_log, snapshot.num_tokens, len(session.token_log))
        except InputError as error:
            raise SnapshotError(f"{path}: belongs to another model ({error})") from error
        return cls(
            system_prompt,
            ChatTemplate(lm, system_prompt),
            stream,
            session.transcript,
            session.token_log,
            session.summary.id,
            saved,
        )


def _feed_log(stream: Stream, token_log: TokenLog, first: int, stop: int) -> None:
    device = stream.model.device
    for start in range(first, stop, stream.config.chunk_size):
        ids = token_log[start : min(stop, start + stream.config.chunk_size)]
        stream.feed(torch.tensor(ids.tolist(), device=device), logits="none")
