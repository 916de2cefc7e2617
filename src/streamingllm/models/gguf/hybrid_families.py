"""The families with layers that carry a state, by the name of their architecture."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from streamingllm.models.gguf import delta_fields as delta_fields
from streamingllm.models.gguf import hybrid_fields as fields
from streamingllm.models.gguf import hybrid_names as names
from streamingllm.models.gguf import mamba_fields as mamba_fields
from streamingllm.models.gguf.family import GgufFamily

_RMS_NORM_EPS = ("attention.layer_norm_rms_epsilon", "norm_eps")
_LAYER_NORM_EPSILON = ("attention.layer_norm_epsilon", "layer_norm_epsilon")

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
            "qwen3_next", names.QWEN3NEXT, more=delta_fields.qwen3next, norm_shift=-1.0
        ),
        "qwen35": GgufFamily(
            "qwen3_5_text", names.QWEN35, more=delta_fields.qwen35, norm_shift=-1.0
        ),
        "qwen35moe": GgufFamily(
            "qwen3_5_moe_text", names.QWEN35_EXPERTS, more=delta_fields.qwen35moe, norm_shift=-1.0
        ),
        "granitehybrid": GgufFamily(
            "granitemoehybrid",
            names.GRANITE_HYBRID,
            more=mamba_fields.granitehybrid,
            has_head_dim=False,
        ),
        "falcon-h1": GgufFamily(
            "falcon_h1", names.FALCON_H1, names.FALCON_H1_OUTER, more=mamba_fields.falcon_h1
        ),
        "nemotron_h": GgufFamily(
            "nemotron_h",
            names.NEMOTRON_H,
            names.NEMOTRON_H_OUTER,
            epsilon=_LAYER_NORM_EPSILON,
            more=mamba_fields.nemotron_h,
        ),
        "nemotron_h_moe": GgufFamily(
            "nemotron_h",
            names.NEMOTRON_H_EXPERTS,
            names.NEMOTRON_H_OUTER,
            epsilon=_LAYER_NORM_EPSILON,
            more=mamba_fields.nemotron_h_moe,
        ),
        "jamba": GgufFamily(
            "jamba", names.JAMBA, names.JAMBA_OUTER, more=mamba_fields.jamba, has_head_dim=False
        ),
        "kimi-linear": GgufFamily(
            "kimi_linear", names.KIMI_LINEAR, more=delta_fields.kimi_linear, has_head_dim=False
        ),
    }
)
