"""Attention backend of streaming mode, in place of vLLM's for CPUs."""

from __future__ import annotations

import os
from typing import Any, ClassVar

from torch import Tensor
from vllm.config import VllmConfig, get_current_vllm_config
from vllm.v1.attention.backend import AttentionLayer
from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend, CPUAttentionBackendImpl
from vllm.v1.kv_cache_interface import AttentionSpec, FullAttentionSpec

from streamingllm_vllm.cache_manager import SinkWindowSpec
from streamingllm_vllm.deployment import check_deployment, check_layer
from streamingllm_vllm.errors import UnsupportedDeploymentError
from streamingllm_vllm.metadata_builder import (
    KeyCopies,
    SinkWindowMetadata,
    SinkWindowMetadataBuilder,
)
from streamingllm_vllm.rule import SinkWindowRule
from streamingllm_vllm.settings import StreamingSettings


class SinkWindowBackendImpl(CPUAttentionBackendImpl):
    """Copy turned keys, then attend as vLLM does.

    The copies are made here, not before the step, because a chunk may hold the sinks themselves.

    Raises:
        UnsupportedDeploymentError: the deployment has settings that streaming mode does not
            support.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        config = get_current_vllm_config()
        check_deployment(config)
        check_layer(self)
        SinkWindowBackend.deployment = config

    def forward(
        self,
        layer: AttentionLayer,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        kv_cache: Tensor,
        attn_metadata: SinkWindowMetadata | None,
        output: Tensor,
        *scales: Any,
        **named_scales: Any,
    ) -> Tensor:
        """Attend; shapes are those of `CPUAttentionBackendImpl.forward`."""
        if attn_metadata is not None and attn_metadata.key_copies is not None:
            self._copy_keys(layer, kv_cache, attn_metadata.key_copies)
        return super().forward(
            layer, query, key, value, kv_cache, attn_metadata, output, *scales, **named_scales
        )

    def _copy_keys(self, layer: AttentionLayer, kv_cache: Tensor, copies: KeyCopies) -> None:
        keys, values = copies.packed_cache.read(kv_cache, copies.sources)
        turned = copies.rotary_table.turn(keys, copies.distances)
        self.do_kv_cache_update(layer, turned, values, kv_cache, copies.targets)


class SinkWindowBackend(CPUAttentionBackend):
    """Give each layer a cache of sinks and a window."""

    # Specs are asked for without a config, after the layers were constructed with one.
    deployment: ClassVar[VllmConfig | None] = None

    @staticmethod
    def get_impl_cls() -> type[SinkWindowBackendImpl]:
        return SinkWindowBackendImpl

    @staticmethod
    def get_builder_cls() -> type[SinkWindowMetadataBuilder]:
        return SinkWindowMetadataBuilder

    @classmethod
    def customize_spec(cls, spec: AttentionSpec) -> AttentionSpec:
        """Return the spec of a layer with sinks and a window.

        Raises:
            UnsupportedDeploymentError: the layer has a window of its own.
        """
        settings = StreamingSettings.read(os.environ)
        assert settings is not None
        assert cls.deployment is not None
        if type(spec) is not FullAttentionSpec or spec.sliding_window or spec.attention_chunk_size:
            raise UnsupportedDeploymentError(
                f"kv_cache_spec={spec} is not supported in streaming mode; choose a model whose "
                "layers all attend to all tokens"
            )
        rule = SinkWindowRule(settings.num_sink_tokens, settings.window_size, spec.block_size)
        scheduler = cls.deployment.scheduler_config
        rows = rule.most_rows(scheduler.max_num_batched_tokens, scheduler.max_num_seqs)
        return SinkWindowSpec(
            block_size=spec.block_size,
            num_kv_heads=spec.num_kv_heads,
            head_size=spec.head_size,
            head_size_v=spec.head_size_v,
            dtype=spec.dtype,
            dcp_sharded=spec.dcp_sharded,
            max_tp_shards=spec.max_tp_shards,
            sliding_window=settings.window_size,
            num_sink_tokens=settings.num_sink_tokens,
            num_scratch_blocks=rows * (settings.num_sink_tokens // spec.block_size),
        )
