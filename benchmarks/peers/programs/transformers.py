"""Plain transformers: eager modules and a dense DynamicCache."""

from __future__ import annotations

import torch
from transformers import AutoModelForCausalLM, DynamicCache

from benchmarks.peers.programs.protocol import Peer, Settings, serve


class Transformers(Peer):
    """The rule `dense`."""

    packages = ("transformers", "torch")

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        torch.set_num_threads(settings.threads)
        self.model = AutoModelForCausalLM.from_pretrained(
            settings.checkpoint,
            dtype=getattr(torch, settings.weights),
            attn_implementation="eager",  # for single queries it is the faster one here
        )
        self.clear()

    def clear(self) -> None:
        self.cache = DynamicCache(config=self.model.config)

    def crop(self, num_tokens: int) -> None:
        self.cache.crop(num_tokens - self.cache.get_seq_length())  # below zero: that many go

    def feed(self, tokens: list[int]) -> int:
        with torch.inference_mode():
            ids = torch.tensor([tokens])
            output = self.model(ids, past_key_values=self.cache, logits_to_keep=1)
            return int(output.logits[0, -1].argmax())

    def read(self, tokens: list[int]) -> float:
        self.model.set_attn_implementation("sdpa")  # eager would build the matrix of scores
        return super().read(tokens)


if __name__ == "__main__":
    serve(Transformers)
