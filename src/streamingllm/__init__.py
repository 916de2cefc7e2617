"""Endless language model streams: attention sinks and a rolling window on any decoder.

Names are imported on first use, so that `import streamingllm` and `streamingllm --help` do not
load torch and transformers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamingllm.lazy_exports import lazy_exports

__version__ = "0.1.0"

_HOMES = {
    "AsyncEngine": "streamingllm.engine",
    "Engine": "streamingllm.engine",
    "Grammar": "streamingllm.stream.grammar",
    "LanguageModel": "streamingllm.models",
    "SamplingParams": "streamingllm.stream.sampling",
    "SinkCache": "streamingllm.integration.sink_cache",
    "Stream": "streamingllm.stream",
    "StreamConfig": "streamingllm.config",
    "generate_text": "streamingllm.stream.text",
    "load_model": "streamingllm.models",
}
__all__ = ["__version__", *_HOMES]

if TYPE_CHECKING:
    from streamingllm.config import StreamConfig as StreamConfig
    from streamingllm.engine import AsyncEngine as AsyncEngine
    from streamingllm.engine import Engine as Engine
    from streamingllm.integration.sink_cache import SinkCache as SinkCache
    from streamingllm.models import LanguageModel as LanguageModel
    from streamingllm.models import load_model as load_model
    from streamingllm.stream import Stream as Stream
    from streamingllm.stream.grammar import Grammar as Grammar
    from streamingllm.stream.sampling import SamplingParams as SamplingParams
    from streamingllm.stream.text import generate_text as generate_text
else:  # not for type checkers: to them every name would be Any
    __getattr__, _dir = lazy_exports(__name__, _HOMES)

    def __dir__() -> list[str]:
        return sorted([*_dir(), "__version__"])
