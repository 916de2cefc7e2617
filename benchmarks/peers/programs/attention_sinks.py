"""The package attention-sinks: the paper's rule, keys rotated afresh at each step."""

from __future__ import annotations

import importlib
from typing import Any

import torch

from benchmarks.peers.programs.protocol import Peer, Settings, serve


class AttentionSinks(Peer):
    """The rule `sinks`."""

    packages = ("attention-sinks", "torch", "transformers")

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        torch.set_num_threads(settings.threads)
        config: Any = importlib.import_module("transformers").LlamaConfig.from_pretrained(
            settings.checkpoint
        )
        # Its transformers is older than the way in which the checkpoint says this.
        config.rope_theta = config.rope_parameters["rope_theta"]
        attention_sinks: Any = importlib.import_module("attention_sinks")
        self.model = attention_sinks.AutoModelForCausalLM.from_pretrained(
            settings.checkpoint,
            config=config,
            torch_dtype=getattr(torch, settings.weights),
            attention_sink_size=settings.num_sink_tokens,
            attention_sink_window_size=settings.window_size,
        )
        self.clear()

    def clear(self) -> None:
        self.cache: Any = None

    def feed(self, tokens: list[int]) -> int:
        with torch.inference_mode():
            ids = torch.tensor([tokens])
            output = self.model(ids, past_key_values=self.cache, use_cache=True)
        self.cache = output.past_key_values
        return int(output.logits[0, -1].argmax())


if __name__ == "__main__":
    serve(AttentionSinks)
