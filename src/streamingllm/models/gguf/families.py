"""The families whose GGUF files are read, by the name of their architecture."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from streamingllm.models.gguf import family_fields as fields
from streamingllm.models.gguf import family_names as names
from streamingllm.models.gguf import gemma_fields as gemma_fields
from streamingllm.models.gguf import norm_fields as norm_fields
from streamingllm.models.gguf.family import (
    ATTENTION,
    DENSE,
    EXPERTS,
    MLP,
    NORMS,
    QK_NORMS,
    GgufFamily,
)
from streamingllm.models.gguf.hybrid_families import HYBRIDS

_LAYER_NORM = "attention.layer_norm_epsilon"
_EPS = (_LAYER_NORM, "layer_norm_eps")
_EPSILON = (_LAYER_NORM, "layer_norm_epsilon")
_NORM_EPSILON = (_LAYER_NORM, "norm_epsilon")
_SPARSE = {**DENSE, **EXPERTS}
_LLAMA = {**DENSE, **names.PAIRS}

_ROPE = {
    "llama": GgufFamily("llama", {**_LLAMA, **EXPERTS}, more=fields.llama),
    "mistral3": GgufFamily("llama", _LLAMA, more=fields.mistral3),
    "internlm2": GgufFamily("llama", _LLAMA, more=fields.llama),
    "xverse": GgufFamily("llama", _LLAMA, more=fields.llama),
    "arcee": GgufFamily("arcee", _LLAMA, more=fields.llama),
    "smollm3": GgufFamily("smollm3", _LLAMA, more=fields.smollm3),
    "granite": GgufFamily("granite", _LLAMA, more=fields.granite, has_head_dim=False),
    "granitemoe": GgufFamily(
        "granitemoe", {**_LLAMA, **names.GRANITE_EXPERTS}, more=fields.granite, has_head_dim=False
    ),
    "qwen2": GgufFamily("qwen2", more=fields.no_window, has_head_dim=False),
    "qwen2moe": GgufFamily(
        "qwen2_moe",
        {**_SPARSE, **names.SHARED_EXPERT},
        more=fields.qwen2moe,
        has_head_dim=False,
    ),
    "qwen3": GgufFamily("qwen3", {**DENSE, **QK_NORMS}, more=fields.qwen3),
    "qwen3moe": GgufFamily("qwen3_moe", {**_SPARSE, **QK_NORMS}, more=fields.qwen3moe),
    "phi3": GgufFamily(
        "phi3",
        {**NORMS, **ATTENTION, **names.FUSED_GATE, "attn_qkv": "self_attn.qkv_proj"},
        more=fields.phi3,
        has_head_dim=False,
    ),
    "gemma": GgufFamily("gemma", norm_shift=-1.0),
    "gemma2": GgufFamily(
        "gemma2", {**names.SANDWICH, **ATTENTION, **MLP}, more=gemma_fields.gemma2, norm_shift=-1.0
    ),
    "gemma3": GgufFamily(
        "gemma3_text",
        {**names.SANDWICH, **ATTENTION, **QK_NORMS, **MLP},
        more=gemma_fields.gemma3,
        norm_shift=-1.0,
    ),
    "gemma3n": GgufFamily(
        "gemma3n_text",
        names.GEMMA3N,
        {**names.PER_LAYER_OUTER, **names.ALTUP},
        more=gemma_fields.gemma3n,
        is_unread=gemma_fields.uses_other_keys,
        stacked=frozenset({"altup_proj", "altup_unembd_proj"}),
    ),
    "gemma4": GgufFamily(
        "gemma4_text",
        names.GEMMA4,
        names.PER_LAYER_OUTER,
        more=gemma_fields.gemma4,
        is_unread=gemma_fields.uses_other_keys,
    ),
    "olmo2": GgufFamily(
        "olmo2",
        {**names.POST_NORMS, **ATTENTION, **QK_NORMS, **MLP},
        more=fields.olmo2,
        has_head_dim=False,
    ),
    "olmoe": GgufFamily("olmoe", {**_SPARSE, **QK_NORMS}, more=fields.olmoe, has_head_dim=False),
    "exaone4": GgufFamily(
        "exaone4", {**names.POST_NORMS, **ATTENTION, **QK_NORMS, **MLP}, more=fields.exaone4
    ),
    "glm4": GgufFamily(
        "glm4", {**names.GLM4_NORMS, **ATTENTION, **names.FUSED_GATE}, more=fields.glm4
    ),
    "glm4moe": GgufFamily(
        "glm4_moe",
        {
            **_SPARSE,
            **QK_NORMS,
            **names.SHARED_EXPERTS,
            "post_attention_norm": "post_attention_layernorm",
        },
        more=fields.glm4moe,
    ),
    "ernie4_5": GgufFamily("ernie4_5", more=fields.ernie),
    "seed_oss": GgufFamily(
        "seed_oss",
        {**ATTENTION, **MLP, **names.GPT_OSS_NORMS},
        more=fields.seed_oss,
    ),
    "hunyuan-dense": GgufFamily("hunyuan_v1_dense", {**DENSE, **names.HUNYUAN_NORMS}),
    "gpt-oss": GgufFamily("gpt_oss", names.GPT_OSS, more=fields.gpt_oss),
    "deepseek2": GgufFamily(
        "deepseek_v2",
        {**NORMS, **names.MLA, **MLP, **EXPERTS, **names.SHARED_EXPERTS},
        more=fields.deepseek2,
        has_head_dim=False,
    ),
}
_LAYER_NORMS = {
    "starcoder2": GgufFamily(
        "starcoder2",
        {**NORMS, **ATTENTION, "ffn_up": "mlp.c_fc", "ffn_down": "mlp.c_proj"},
        epsilon=_NORM_EPSILON,
        more=norm_fields.starcoder2,
        has_head_dim=False,
    ),
    "stablelm": GgufFamily("stablelm", epsilon=_EPS, more=norm_fields.stablelm, has_head_dim=False),
    "phi2": GgufFamily("phi", names.PHI, names.PHI_OUTER, epsilon=_EPS, has_head_dim=False),
    "command-r": GgufFamily(
        "cohere", {**DENSE, **QK_NORMS}, epsilon=_EPS, more=norm_fields.cohere, has_head_dim=False
    ),
    "cohere2": GgufFamily("cohere2", epsilon=_EPS, more=norm_fields.cohere2),
    "olmo": GgufFamily(
        "olmo", _LLAMA, epsilon=(_LAYER_NORM, ""), more=fields.olmo, has_head_dim=False
    ),
    "nemotron": GgufFamily(
        "nemotron", epsilon=(_LAYER_NORM, "norm_eps"), more=norm_fields.nemotron, norm_shift=-1.0
    ),
    "falcon": GgufFamily(
        "falcon",
        names.FALCON,
        names.TRANSFORMER,
        "transformer.h",
        epsilon=_EPSILON,
        more=norm_fields.falcon,
        has_head_dim=False,
        variant=("attn_norm_2.weight", names.FALCON_40B),
    ),
    "bloom": GgufFamily(
        "bloom",
        names.BLOOM,
        names.TRANSFORMER,
        "transformer.h",
        epsilon=_EPSILON,
        more=norm_fields.bloom,
        has_head_dim=False,
    ),
    "gptneox": GgufFamily(
        "gpt_neox",
        names.NEOX,
        names.NEOX_OUTER,
        "gpt_neox.layers",
        epsilon=_EPS,
        more=norm_fields.neox,
        has_head_dim=False,
    ),
    "mpt": GgufFamily(
        "mpt",
        names.MPT,
        names.MPT_OUTER,
        "transformer.blocks",
        epsilon=_EPSILON,
        more=norm_fields.mpt,
        has_head_dim=False,
    ),
    "gpt2": GgufFamily(
        "gpt2",
        names.GPT2,
        names.GPT2_OUTER,
        "transformer.h",
        epsilon=_EPSILON,
        more=norm_fields.gpt2,
        has_head_dim=False,
    ),
}
GGUF_FAMILIES: Mapping[str, GgufFamily] = MappingProxyType({**_ROPE, **_LAYER_NORMS, **HYBRIDS})
_NO_ATTENTION = "has no attention, so that it keeps no keys that a window could evict"
_ENCODER = "reads its whole input at once"
REFUSED: Mapping[str, str] = MappingProxyType(
    {
        "llama4": "attends in fixed chunks, which a rolling window would cut apart",
        "plamo2": "has no class in transformers",
        **dict.fromkeys(("mamba", "mamba2", "rwkv6", "rwkv7", "arwkv7"), _NO_ATTENTION),
        **dict.fromkeys(
            ("bert", "nomic-bert", "modern-bert", "gemma-embedding", "t5", "t5encoder"), _ENCODER
        ),
    }
)
