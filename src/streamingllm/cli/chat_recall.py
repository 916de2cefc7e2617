"""The memory of a chat: what it puts before a message, and the line that says so."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from streamingllm.memory.conversation_memory import ConversationMemory, recalled_context
from streamingllm.sessions import Conversation
from streamingllm.sessions.recall import Recall, RecalledText

_SHOWN_CHARACTERS = 60


class ChatRecall:
    """Recall for each message of a chat, in a folder that goes when the chat ends."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="streamingllm-chat-")
        self._memory = ConversationMemory(Path(self._folder.name) / "memory.db")
        self._last = Recall()
        self.report: list[dict[str, Any]] = []

    def close(self) -> None:
        """Close the memory and delete its folder."""
        self._memory.close()
        self._folder.cleanup()

    def before(self, conversation: Conversation, text: str) -> str:
        """Return what to say before a message."""
        self._last = self._memory.recall(conversation, text)
        turn = conversation.transcript.num_turns + 1
        self.report += [
            {"turn": turn, "message_id": part.message_id, "position": part.position}
            | {"text": part.text, "score": part.score}
            for part in self._last.texts
        ]
        return recalled_context(self._last.texts)

    def describe(self, conversation: Conversation) -> str:
        """Return what was recalled for the last message, a line for each text, or that none was."""
        lines = [_line(conversation, part) for part in self._last.texts] or ["nothing recalled"]
        if self._last.is_not_found:
            lines.append("not found: nothing about this is visible or in the memory")
        return "\n".join(lines)


def _line(conversation: Conversation, part: RecalledText) -> str:
    turn = conversation.transcript.num_turns_before(part.position) + 1
    said = " ".join(part.text.split())
    if len(said) > _SHOWN_CHARACTERS:
        said = f"{said[:_SHOWN_CHARACTERS]}..."
    why = f" (for: {', '.join(part.words)})" if part.words else ""
    return f'recalled: turn {turn}, {part.speaker}: "{said}"{why}'
