"""Refuse models with MLA, whose latent cache streaming mode does not support."""

from __future__ import annotations

from typing import NoReturn

from vllm.v1.attention.backends.mla.cpu_mla import CPUMLABackend
from vllm.v1.kv_cache_interface import AttentionSpec

from streamingllm_vllm.errors import UnsupportedDeploymentError


class RefusedMlaBackend(CPUMLABackend):
    """Refuse a model by name before it is served without its sinks."""

    @classmethod
    def customize_spec(cls, spec: AttentionSpec) -> NoReturn:
        """Refuse the layer.

        Raises:
            UnsupportedDeploymentError: always.
        """
        raise UnsupportedDeploymentError(
            "use_mla=True is not supported in streaming mode; choose a model without MLA"
        )
