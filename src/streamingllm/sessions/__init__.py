"""Sessions: transcripts, token logs, stores, and a conversation without end.

Names are loaded on first use, because transcripts, logs and stores need no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamingllm.lazy_exports import lazy_exports

_HOMES = {
    "DEFAULT_SYSTEM_PROMPT": "streamingllm.sessions.system_prompt",
    "ChatTemplate": "streamingllm.sessions.template",
    "ContentPart": "streamingllm.sessions.transcript",
    "Conversation": "streamingllm.sessions.conversation",
    "Message": "streamingllm.sessions.transcript",
    "TokenLog": "streamingllm.sessions.token_log",
    "ToolCall": "streamingllm.sessions.transcript",
    "Transcript": "streamingllm.sessions.transcript",
    "Turn": "streamingllm.sessions.conversation",
    "Visibility": "streamingllm.sessions.visibility",
}
__all__ = list(_HOMES)

if TYPE_CHECKING:
    from streamingllm.sessions.conversation import Conversation as Conversation
    from streamingllm.sessions.conversation import Turn as Turn
    from streamingllm.sessions.system_prompt import DEFAULT_SYSTEM_PROMPT as DEFAULT_SYSTEM_PROMPT
    from streamingllm.sessions.template import ChatTemplate as ChatTemplate
    from streamingllm.sessions.token_log import TokenLog as TokenLog
    from streamingllm.sessions.transcript import ContentPart as ContentPart
    from streamingllm.sessions.transcript import Message as Message
    from streamingllm.sessions.transcript import ToolCall as ToolCall
    from streamingllm.sessions.transcript import Transcript as Transcript
    from streamingllm.sessions.visibility import Visibility as Visibility
else:  # not for type checkers: to them every name would be Any
    __getattr__, __dir__ = lazy_exports(__name__, _HOMES)
