"""Endless language model streams: attention sinks and a rolling window on any decoder.

Names are loaded on first use, so that importing the package (and `streamingllm --help`) does not
wait for torch and transformers.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from streamingllm.config import StreamConfig as StreamConfig
    from streamingllm.engine import Engine as Engine
    from streamingllm.engine import GenerationParams as GenerationParams
    from streamingllm.engine import Grammar as Grammar
    from streamingllm.integration.sink_cache import SinkCache as SinkCache
    from streamingllm.models import LanguageModel as LanguageModel
    from streamingllm.models import load_model as load_model
    from streamingllm.stream import Stream as Stream
    from streamingllm.stream.sampling import Sampling as Sampling
    from streamingllm.stream.text import generate_text as generate_text

__version__ = "0.1.0"

_HOMES = {
    "SinkCache": "streamingllm.integration.sink_cache",
    "StreamConfig": "streamingllm.config",
    "Engine": "streamingllm.engine",
    "GenerationParams": "streamingllm.engine",
    "Grammar": "streamingllm.engine",
    "LanguageModel": "streamingllm.models",
    "load_model": "streamingllm.models",
    "Sampling": "streamingllm.stream.sampling",
    "Stream": "streamingllm.stream",
    "generate_text": "streamingllm.stream.text",
}
__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
