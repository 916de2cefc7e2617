"""Register the parts of streaming mode at vLLM's own hooks."""

from __future__ import annotations

from vllm.v1.attention.backends.registry import AttentionBackendEnum, register_backend
from vllm.v1.kv_cache_spec_registry import KVCacheSpecRegistry

from streamingllm_vllm.cache_manager import SinkWindowManager, SinkWindowSpec
from streamingllm_vllm.deployment import check_installation

_BACKEND = "streamingllm_vllm.backend.SinkWindowBackend"
_REFUSED = "streamingllm_vllm.refused_backend.RefusedMlaBackend"


def register_streaming() -> None:
    """Register the cache's spec and manager, and the backend of CPUs.

    Raises:
        UnsupportedDeploymentError: the version of vLLM or the device is not supported.
    """
    check_installation()
    # A registry with an entry never registers its own specs, so they come first.
    KVCacheSpecRegistry._ensure_registered()
    KVCacheSpecRegistry.register(SinkWindowSpec, SinkWindowManager, SinkWindowSpec)
    register_backend(AttentionBackendEnum.CPU_ATTN, _BACKEND)
    for backend in (AttentionBackendEnum.CPU_MLA, AttentionBackendEnum.AMX_MLA):
        register_backend(backend, _REFUSED)
