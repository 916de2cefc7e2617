"""Families that bypass transformers' attention interface."""

from streamingllm.attention.adapters.base import Adapter, Undo, override
from streamingllm.attention.adapters.registry import ADAPTERS

__all__ = ["ADAPTERS", "Adapter", "Undo", "override"]
