"""Our stream: 4 sinks and a rolling window, one token evicted per step."""

from __future__ import annotations

import torch

from benchmarks.peers.programs.protocol import Peer, Settings, serve
from streamingllm import Stream, StreamConfig, load_model


class Ours(Peer):
    """The rule `sinks`."""

    packages = ("torch", "transformers")

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        torch.set_num_threads(settings.threads)
        self.model = load_model(settings.checkpoint, dtype=settings.weights).model
        self.clear()

    def clear(self) -> None:
        sizes = self.settings.num_sink_tokens, self.settings.window_size
        self.stream = Stream(self.model, StreamConfig(*sizes, max_rewind_tokens=0))

    def feed(self, tokens: list[int]) -> int:
        return int(self.stream.feed(torch.tensor(tokens), logits="last").argmax())


if __name__ == "__main__":
    serve(Ours)
