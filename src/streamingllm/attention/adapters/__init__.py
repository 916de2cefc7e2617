"""Adapters by `config.model_type`."""

from streamingllm.attention.adapters.base import ADAPTERS, Adapter, Undo

__all__ = ["ADAPTERS", "Adapter", "Undo"]
