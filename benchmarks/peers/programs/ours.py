"""Our stream: 4 sinks and a rolling window, one token evicted per step."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from benchmarks.peers.programs.llama_cpp import FORMATS
from benchmarks.peers.programs.protocol import Peer, Settings, serve
from streamingllm import Stream, StreamConfig, load_model
from streamingllm.config import WEIGHT_QUANTIZATIONS
from streamingllm.kernels.allocation import keep_freed_memory


class Ours(Peer):
    """The rule `sinks`."""

    packages = ("torch", "transformers")

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        torch.set_num_threads(settings.threads)
        quantized = settings.weights in WEIGHT_QUANTIZATIONS
        source = settings.checkpoint
        if quantized:  # from the very file that llama.cpp reads
            source = str(Path(settings.converted) / f"{FORMATS[settings.weights]}.gguf")
        self.model = load_model(
            source,
            dtype="bfloat16" if quantized else settings.weights,
            quantize=settings.weights if quantized else "none",
        ).model
        keep_freed_memory()  # as our commands do
        self.clear()

    def clear(self) -> None:
        sizes = self.settings.num_sink_tokens, self.settings.window_size
        self.stream = Stream(self.model, StreamConfig(*sizes, max_rewind_tokens=0))

    def fill(self) -> None:
        super().fill()
        self.stream.compile(wait=True)
        self.written = self.stream.generate(sys.maxsize)

    def step(self) -> None:
        self.token = next(self.written)

    def feed(self, tokens: list[int]) -> int:
        return int(self.stream.feed(torch.tensor(tokens), logits="last").argmax())


if __name__ == "__main__":
    serve(Ours)
