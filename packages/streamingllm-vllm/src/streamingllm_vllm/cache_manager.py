"""Cache manager in vLLM's scheduler: the blocks of a request are sinks and window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vllm.config import VllmConfig
from vllm.utils.math_utils import cdiv
from vllm.v1.core.single_type_kv_cache_manager import SlidingWindowManager
from vllm.v1.kv_cache_interface import SlidingWindowSpec

from streamingllm_vllm.rule import SinkWindowRule


@dataclass(frozen=True, kw_only=True)
class SinkWindowSpec(SlidingWindowSpec):
    """Describe the cache of a layer that keeps sinks and a window.

    Being a `SlidingWindowSpec`, it is admitted by the blocks that a request holds at most, not by
    its length. `sliding_window` is the window size.

    Args:
        num_sink_tokens: first tokens kept for ever.
        num_scratch_blocks: blocks set aside for turned copies of sinks, of all requests together.
    """

    num_sink_tokens: int
    num_scratch_blocks: int

    @property
    def rule(self) -> SinkWindowRule:
        """Return which tokens are visible."""
        return SinkWindowRule(self.num_sink_tokens, self.sliding_window, self.block_size)

    def max_admission_blocks_per_request(
        self, max_in_flight_tokens: int, max_model_len: int
    ) -> int:
        """Return the blocks that a request holds at most, scratch blocks aside."""
        num_tokens = self.num_sink_tokens + self.sliding_window - 1 + max_in_flight_tokens
        return cdiv(min(num_tokens, max_model_len), self.block_size)

    def max_memory_usage_bytes(self, vllm_config: VllmConfig) -> int:
        """Return the bytes of one request and of the scratch blocks."""
        blocks = self.max_admission_blocks_per_request(
            vllm_config.max_in_flight_tokens, vllm_config.model_config.max_model_len
        )
        return (blocks + self.num_scratch_blocks) * self.page_size_bytes


class SinkWindowManager(SlidingWindowManager):
    """Free the blocks between the sinks and the window.

    It takes the scratch blocks from the pool before any request does. So they have the ids from 1
    on, which the worker relies on.
    """

    def __init__(self, kv_cache_spec: SinkWindowSpec, **kwargs: Any) -> None:
        super().__init__(kv_cache_spec, **kwargs)
        self._rule = kv_cache_spec.rule
        scratch = self.block_pool.get_new_blocks(kv_cache_spec.num_scratch_blocks)
        ids = [block.block_id for block in scratch]
        if ids != scratch_block_ids(kv_cache_spec):
            raise RuntimeError(f"scratch blocks have the ids {ids[:4]}...; vLLM's pool has changed")

    def get_num_skipped_tokens(self, num_computed_tokens: int) -> int:
        """Return 0, because no request begins behind its sinks."""
        return 0

    def remove_skipped_blocks(
        self,
        request_id: str,
        processed_computed_tokens: int,
        num_prompt_tokens: int | None = None,
    ) -> None:
        """Free the blocks that no further query of a request sees."""
        first = self._rule.num_sink_tokens // self.block_size
        end = self._rule.window_start(processed_computed_tokens) // self.block_size
        self._remove_blocks_in_range(request_id, first, end)


def scratch_block_ids(spec: SinkWindowSpec) -> list[int]:
    """Return the ids of the scratch blocks; block 0 is vLLM's null block."""
    return list(range(1, spec.num_scratch_blocks + 1))
