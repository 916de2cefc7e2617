"""The memory: what left the window of a session is found again.

Names are loaded on first use; none of them needs torch except `Listener` and encoders.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamingllm.lazy_exports import lazy_exports

_HOMES = {
    "Guard": "streamingllm.memory.support",
    "Listener": "streamingllm.memory.listener",
    "Memory": "streamingllm.memory.memory",
    "MemorySettings": "streamingllm.memory.settings",
    "Recalled": "streamingllm.memory.records",
    "Support": "streamingllm.memory.support",
}
__all__ = list(_HOMES)

if TYPE_CHECKING:
    from streamingllm.memory.listener import Listener as Listener
    from streamingllm.memory.memory import Memory as Memory
    from streamingllm.memory.records import Recalled as Recalled
    from streamingllm.memory.settings import MemorySettings as MemorySettings
    from streamingllm.memory.support import Guard as Guard
    from streamingllm.memory.support import Support as Support
else:  # not for type checkers: to them every name would be Any
    __getattr__, __dir__ = lazy_exports(__name__, _HOMES)
