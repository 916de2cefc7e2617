"""Adapters by `config.model_type`."""

from __future__ import annotations

from streamingllm.attention.adapters.base import Adapter
from streamingllm.attention.adapters.bloom import BloomAdapter
from streamingllm.attention.adapters.falcon import FalconAdapter
from streamingllm.attention.adapters.gptj import GptJAdapter
from streamingllm.attention.adapters.mpt import MptAdapter

ADAPTERS: dict[str, Adapter] = {
    "bloom": BloomAdapter(),
    "falcon": FalconAdapter(),
    "gptj": GptJAdapter(),
    "mpt": MptAdapter(),
}
