"""Conversations over streams."""

from streamingllm.sessions.conversation import DEFAULT_SYSTEM_PROMPT, Conversation, Turn
from streamingllm.sessions.template import ChatTemplate
from streamingllm.sessions.visibility import Visibility

__all__ = ["DEFAULT_SYSTEM_PROMPT", "ChatTemplate", "Conversation", "Turn", "Visibility"]
