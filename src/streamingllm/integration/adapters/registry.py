"""Adapters by `config.model_type`."""

from __future__ import annotations

from streamingllm.integration.adapters.base import Adapter
from streamingllm.integration.adapters.bloom import BloomAdapter
from streamingllm.integration.adapters.codegen import CodeGenAdapter
from streamingllm.integration.adapters.falcon import FalconAdapter
from streamingllm.integration.adapters.gpt_neox_japanese import GptNeoxJapaneseAdapter
from streamingllm.integration.adapters.gptj import GptJAdapter
from streamingllm.integration.adapters.mpt import MptAdapter

ADAPTERS: dict[str, Adapter] = {
    "bloom": BloomAdapter(),
    "codegen": CodeGenAdapter(),
    "falcon": FalconAdapter(),
    "gpt_neox_japanese": GptNeoxJapaneseAdapter(),
    "gptj": GptJAdapter(),
    "mpt": MptAdapter(),
}
