"""Families that bypass transformers' attention interface."""

from streamingllm.integration.adapters.base import Adapter, Undo, override
from streamingllm.integration.adapters.registry import ADAPTERS

__all__ = ["ADAPTERS", "Adapter", "Undo", "override"]
