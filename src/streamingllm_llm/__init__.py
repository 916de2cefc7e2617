"""Let `llm` chat with the sessions of a server: `llm -m streamingllm`. It needs no torch."""

from streamingllm_llm.plugin import register_models

__all__ = ["register_models"]
