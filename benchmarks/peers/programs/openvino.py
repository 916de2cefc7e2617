"""OpenVINO GenAI: paged attention, dense or with its cache eviction.

Sizes are whole blocks of 32 tokens, so the first 32 are kept in place of `num_sink_tokens`.
Eviction does not rotate the keys that stay: its rotation fails on the 8-bit cache that is the
default, and is off by default.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from benchmarks.peers.programs.protocol import Peer, Settings, serve

BLOCK_TOKENS = 32
NEVER = 1_000_000


class OpenVino(Peer):
    """The rules `dense` and `evict`."""

    packages = ("openvino-genai", "openvino", "optimum-intel", "nncf")

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.numpy: Any = importlib.import_module("numpy")
        self.openvino: Any = importlib.import_module("openvino")
        self.genai: Any = importlib.import_module("openvino_genai")
        self.pipeline = self.genai.ContinuousBatchingPipeline(
            Path(settings.converted) / f"openvino-{settings.weights}",
            self._scheduler(),
            "CPU",
            {"INFERENCE_NUM_THREADS": settings.threads},
        )
        self.generation = self.genai.GenerationConfig(max_new_tokens=NEVER, ignore_eos=True)
        self.handle: Any = None
        self.num_requests = 0

    def _scheduler(self) -> Any:
        size = self.settings.cache_size
        scheduler = self.genai.SchedulerConfig()
        scheduler.max_num_batched_tokens = size
        scheduler.num_kv_blocks = 2 * size // BLOCK_TOKENS + 8
        # A dense turn begins with the text again, which the cache then has already.
        scheduler.enable_prefix_caching = self.settings.rule == "dense"
        scheduler.use_cache_eviction = self.settings.rule == "evict"
        if scheduler.use_cache_eviction:
            recent = size // 2 // BLOCK_TOKENS * BLOCK_TOKENS
            scheduler.cache_eviction_config = self.genai.CacheEvictionConfig(
                BLOCK_TOKENS, recent, size, self.genai.AggregationMode.NORM_SUM
            )
        return scheduler

    def clear(self) -> None:
        if self.handle is not None:
            self.handle.cancel()
            while self.pipeline.has_non_finished_requests():
                self.pipeline.step()
            self.handle = None

    def feed(self, tokens: list[int]) -> int:
        if self.handle is None:
            ids = self.openvino.Tensor(self.numpy.array([tokens], dtype=self.numpy.int64))
            self.num_requests += 1
            self.handle = self.pipeline.add_request(self.num_requests, ids, self.generation)
        # A later token is the one that the pipeline itself has chosen.
        self.pipeline.step()
        (output,) = self.handle.read().values()
        return int(output.generated_ids[-1])

    def fill(self) -> None:
        super().fill()
        for _ in range(2 * BLOCK_TOKENS if self.settings.rule == "evict" else 0):
            self.step()


if __name__ == "__main__":
    serve(OpenVino)
