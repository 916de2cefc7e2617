"""Attention metadata of a step: rows of queries in place of requests."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from vllm.config import VllmConfig
from vllm.v1.attention.backend import CommonAttentionMetadata
from vllm.v1.attention.backends.cpu_attn import (
    CPUAttentionMetadata,
    CPUAttentionMetadataBuilder,
)

from streamingllm_vllm.cache_manager import SinkWindowSpec, scratch_block_ids
from streamingllm_vllm.deployment import check_sizes
from streamingllm_vllm.errors import UnsupportedDeploymentError
from streamingllm_vllm.packed_cache import PackedCache
from streamingllm_vllm.plan import StepPlan, StepPlanner
from streamingllm_vllm.positions import PositionBases
from streamingllm_vllm.rotary import RotaryTable
from streamingllm_vllm.scratch import TurnedSinks
from streamingllm_vllm.settings import StreamingSettings


@dataclass
class KeyCopies:
    """Describe keys that each layer reads, turns and writes before its attention.

    Args:
        sources: slots to read, int64 [tokens].
        targets: slots to write, int64 [tokens].
        distances: positions by which each key is turned, int64 [tokens].
        packed_cache: order of numbers in a block.
        rotary_table: angles.
    """

    sources: Tensor
    targets: Tensor
    distances: NDArray[np.int64]
    packed_cache: PackedCache
    rotary_table: RotaryTable


@dataclass
class SinkWindowMetadata(CPUAttentionMetadata):
    """Add keys to copy to the metadata of a step."""

    key_copies: KeyCopies | None = None


class SinkWindowMetadataBuilder(CPUAttentionMetadataBuilder):
    """Build the metadata of steps in streaming mode.

    It changes the positions that the model sees in place: they are small whatever the stream
    position is.

    Raises:
        UnsupportedDeploymentError: layers of the model or sizes do not fit.
    """

    def __init__(
        self,
        kv_cache_spec: SinkWindowSpec,
        layer_names: list[str],
        vllm_config: VllmConfig,
        device: torch.device,
    ) -> None:
        super().__init__(kv_cache_spec, layer_names, vllm_config, device)
        _check_layers(kv_cache_spec, layer_names, vllm_config)
        rule = kv_cache_spec.rule
        self._rotary_table = RotaryTable.of_model(kv_cache_spec.head_size)
        check_sizes(
            StreamingSettings(rule.num_sink_tokens, rule.window_size),
            rule.block_size,
            vllm_config.scheduler_config.max_num_batched_tokens,
            self._rotary_table.num_positions,
        )
        self._packed_cache = PackedCache.probe(
            rule.block_size,
            kv_cache_spec.num_kv_heads,
            kv_cache_spec.head_size,
            kv_cache_spec.dtype,
            self.isa,
        )
        ids = scratch_block_ids(kv_cache_spec)
        num_blocks = rule.num_sink_tokens // rule.block_size
        sets = list(zip(*(ids[k::num_blocks] for k in range(num_blocks)), strict=True))
        bases = PositionBases(rule, self._rotary_table.num_positions)
        self._planner = StepPlanner(rule, bases, TurnedSinks(sets))

    def build(
        self,
        common_prefix_len: int,
        common_attn_metadata: CommonAttentionMetadata,
        fast_build: bool = False,
    ) -> SinkWindowMetadata:
        """Return the metadata of a step whose rows are planned anew."""
        given = common_attn_metadata
        starts = given.query_start_loc_cpu.numpy()
        step = self._planner.plan(starts, given.seq_lens.numpy(), given.block_table_tensor.numpy())
        positions = given.positions.numpy()
        for index, base in enumerate(step.bases):
            if base:
                positions[starts[index] : starts[index + 1]] -= base
        metadata = super().build(common_prefix_len, _rows_of(given, step), fast_build)
        shared = {field.name: getattr(metadata, field.name) for field in fields(metadata)}
        return SinkWindowMetadata(**shared, key_copies=self._key_copies(step))

    def _key_copies(self, step: StepPlan) -> KeyCopies | None:
        if not step.copies:
            return None
        sources, targets, distances = zip(*step.copies, strict=True)
        return KeyCopies(
            torch.from_numpy(np.concatenate(sources)),
            torch.from_numpy(np.concatenate(targets)),
            np.repeat(np.array(distances), [len(each) for each in sources]),
            self._packed_cache,
            self._rotary_table,
        )


def _rows_of(given: CommonAttentionMetadata, step: StepPlan) -> CommonAttentionMetadata:
    counts = np.diff([0, *step.query_ends])
    width = max((len(table) for table in step.tables), default=1)
    tables = np.zeros((len(step.tables), width), dtype=np.int32)
    for row, table in zip(tables, step.tables, strict=True):
        row[: len(table)] = table
    query_starts = torch.tensor([0, *step.query_ends], dtype=torch.int32)
    lengths = torch.tensor(step.lengths, dtype=torch.int32)
    return given.replace(
        query_start_loc=query_starts,
        query_start_loc_cpu=query_starts,
        seq_lens=lengths,
        seq_lens_cpu_upper_bound=lengths,
        num_reqs=len(step.lengths),
        max_query_len=int(counts.max(initial=0)),
        max_seq_len=max(step.lengths, default=0),
        block_table_tensor=torch.from_numpy(tables),
    )


def _check_layers(spec: object, layer_names: list[str], config: VllmConfig) -> None:
    if not isinstance(spec, SinkWindowSpec):
        raise UnsupportedDeploymentError(
            f"kv_cache_spec={type(spec).__name__} is not supported in streaming mode; choose a "
            "model whose layers all attend to all tokens"
        )
    others = set(config.compilation_config.static_forward_context) - set(layer_names)
    if others:
        raise UnsupportedDeploymentError(
            f"layers={sorted(others)[:3]} have a cache of another kind; choose a model whose "
            "layers all attend to all tokens"
        )
