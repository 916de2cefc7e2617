"""The families with layers that carry a state, by the name of their architecture."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from streamingllm.models import gguf_hybrid_fields as fields
from streamingllm.models import gguf_hybrid_names as names
from streamingllm.models.gguf_family import GgufFamily

_RMS_NORM_EPS = ("attention.layer_norm_rms_epsilon", "norm_eps")

HYBRIDS: Mapping[str, GgufFamily] = MappingProxyType(
    {
        "lfm2": GgufFamily(
            "lfm2",
            names.LFM2,
            names.LFM2_OUTER,
            epsilon=_RMS_NORM_EPS,
            more=fields.lfm2,
            has_head_dim=False,
        ),
        "lfm2moe": GgufFamily(
            "lfm2_moe",
            {**names.LFM2, **names.LFM2_EXPERTS},
            names.LFM2_OUTER,
            epsilon=_RMS_NORM_EPS,
            more=fields.lfm2moe,
            has_head_dim=False,
        ),
        "qwen3next": GgufFamily(
            "qwen3_next", names.QWEN3NEXT, more=fields.qwen3next, norm_shift=-1.0
        ),
        "qwen35": GgufFamily("qwen3_5_text", names.QWEN35, more=fields.qwen35, norm_shift=-1.0),
        "qwen35moe": GgufFamily(
            "qwen3_5_moe_text", names.QWEN35_EXPERTS, more=fields.qwen35moe, norm_shift=-1.0
        ),
    }
)
