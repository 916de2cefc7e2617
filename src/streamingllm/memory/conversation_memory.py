"""Recall into a conversation what left its window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from uuid import uuid4
from weakref import WeakKeyDictionary

from streamingllm.errors import ConfigError
from streamingllm.memory.memory import Memory
from streamingllm.memory.passages import recalled_block
from streamingllm.memory.recaller import MemoryRecaller
from streamingllm.sessions.conversation import Conversation
from streamingllm.sessions.recall import Recall, RecalledText

_END = 1 << 62
_PINNED_ROLE = "system"


class ConversationMemory:
    """Follow conversations, their branches included, and find what left their windows.

    The memory is made of the transcripts, so a saved conversation needs no file besides its own.

    Args:
        path: of a database that is not there yet.
        recall_share: bound on the recalled texts and their marks, as a share of the cache.

    Raises:
        ConfigError: the share is out of range.
    """

    def __init__(self, path: Path, recall_share: float = 0.2) -> None:
        if not 0 < recall_share <= 0.5:
            raise ConfigError(
                f"recall_share={recall_share!r} is out of range; choose more than 0, at most 0.5"
            )
        self.memory = Memory(path)
        self._recaller = MemoryRecaller(self.memory)
        self._recall_share = recall_share
        self._keys: WeakKeyDictionary[Conversation, str] = WeakKeyDictionary()
        self._known: dict[str, list[str]] = {}  # ids of a conversation's messages, by its key

    def close(self) -> None:
        """Close the database."""
        self.memory.close()

    def recall(self, conversation: Conversation, text: str) -> Recall:
        """Return what a message is about and the conversation no longer sees.

        Args:
            conversation: before the message is said.
            text: of the message.
        """
        key = self._follow(conversation)
        seen, config = conversation.stream.num_seen_tokens, conversation.stream.config
        cache_size = config.num_sink_tokens + config.window_size
        visible = range(max(0, seen - config.window_size), _END)
        budget = int(self._recall_share * cache_size)
        found = self._recaller.recall(key, text, visible, budget)
        encode = conversation.lm.encode
        while found.texts and len(encode(recalled_context(found.texts))) > budget:
            found = replace(found, texts=found.texts[:-1])
        return found

    def _follow(self, conversation: Conversation) -> str:
        """Append what was said since, forget what was taken back, and return the key."""
        key = self._keys.setdefault(conversation, uuid4().hex)
        known = self._known.setdefault(key, [])
        messages = [one for one in conversation.transcript if one.role != _PINNED_ROLE]
        ids = [message.id for message in messages]
        num_same = next(
            (n for n, (old, new) in enumerate(zip(known, ids, strict=False)) if old != new),
            min(len(known), len(ids)),
        )
        with self.memory.transaction():
            self.memory.forget(key, known[num_same:])
            for message in messages[num_same:]:
                if message.text:
                    self.memory.append(
                        key,
                        message.role,
                        message.text,
                        message_id=message.id,
                        position=message.first,
                    )
        self._known[key] = ids
        return key


def recalled_context(texts: Sequence[RecalledText]) -> str:
    """Return recalled texts between marks, in the order of the stream, to say before a message."""
    lines = [
        f"{part.speaker}: {part.text.strip()}"
        for part in sorted(texts, key=lambda part: part.position)
    ]
    return recalled_block(lines).rstrip("\n") if lines else ""
