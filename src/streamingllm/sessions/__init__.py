"""Conversations over streams."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamingllm.lazy_exports import lazy_exports

_HOMES = {
    "DEFAULT_SYSTEM_PROMPT": "streamingllm.sessions.system_prompt",
    "ChatTemplate": "streamingllm.sessions.template",
    "Conversation": "streamingllm.sessions.conversation",
    "Turn": "streamingllm.sessions.conversation",
    "Visibility": "streamingllm.sessions.visibility",
}
__all__ = list(_HOMES)

if TYPE_CHECKING:
    from streamingllm.sessions.conversation import Conversation as Conversation
    from streamingllm.sessions.conversation import Turn as Turn
    from streamingllm.sessions.system_prompt import DEFAULT_SYSTEM_PROMPT as DEFAULT_SYSTEM_PROMPT
    from streamingllm.sessions.template import ChatTemplate as ChatTemplate
    from streamingllm.sessions.visibility import Visibility as Visibility
else:  # not for type checkers: to them every name would be Any
    __getattr__, __dir__ = lazy_exports(__name__, _HOMES)
