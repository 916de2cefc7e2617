"""Fields that single families need to be small; `...` leaves a field to its default."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FULL, LOCAL, LINEAR = "full_attention", "sliding_attention", "linear_attention"
ROPE = {"rope_type": "default", "rope_theta": 10_000.0}
PER_KIND = {FULL: ROPE, LOCAL: ROPE}
MROPE = ROPE | {"mrope_section": [4, 2, 2], "mrope_interleaved": True}
MIXED = {"num_hidden_layers": 2, "layer_types": [LOCAL, FULL], "sliding_window": 10}
ENCODER = {"encoder_layers": 1, "encoder_attention_heads": 4, "encoder_ffn_dim": 48}
DECODER = {"decoder_layers": 2, "decoder_attention_heads": 4, "decoder_ffn_dim": 48}
GEMMA4 = MIXED | {
    "head_dim": 16,
    "global_head_dim": 32,
    "vocab_size_per_layer_input": 128,
    "hidden_size_per_layer_input": 8,
    "num_kv_shared_layers": 0,
}
MAMBA = {"mamba_d_head": 16, "mamba_n_heads": 8, "mamba_d_state": 16}

INDEXED = {"num_hidden_layers": 2, "layer_types": ["indexed_attention"] * 2}
EXPERTS = {"num_experts_per_tok": 2}
ZAMBA = {"num_hidden_layers": 3, "layer_types": [LINEAR, "hybrid", "hybrid"]}
SHARED = {
    "num_hidden_layers": 5,
    "layer_types": [LOCAL, FULL, LOCAL, LOCAL, FULL],
    "num_kv_shared_layers": 2,
}
SPARSE = {"num_hidden_layers": 2, "layer_types": [FULL, "minimax_m3_sparse"]}
SCALED_ROPE = {
    "rope_parameters": ROPE
    | {"original_max_position_embeddings": 64, "llama_4_scaling_beta": 0.1, "rope_type": "default"}
}
NARROW_VALUES = {"num_hidden_layers": 2, "layer_types": [FULL, FULL]} | {
    "head_dim": 32,
    "v_head_dim": 16,
    "swa_head_dim": 32,
    "swa_v_head_dim": 16,
}
QSA = {"indexer_n_heads": 2, "indexer_kv_heads": 1, "indexer_head_dim": 16} | {
    "indexer_budget": 512,
    "indexer_compress_ratio": 4,
}
LATENT = {"num_key_value_heads": 4}
QWEN_VL = {"rope_parameters": ROPE | {"mrope_section": [2, 3, 3]}}

FIELDS: Mapping[str, Mapping[str, Any]] = {
    "bailing_hybrid": LATENT,
    "bamba": MAMBA | {"num_hidden_layers": 2, "attn_layer_indices": [1]},
    "blenderbot": ENCODER | DECODER,
    "chameleon": {"vocabulary_map": {"<image>": 5}},
    "cohere_compass": {"text_config": {"rope_parameters": PER_KIND}},
    "cohere_compass_text": {"rope_parameters": PER_KIND},
    "cosmos3_edge": {"text_config": {"rope_parameters": MROPE}},
    "deepseek_v2": EXPERTS,
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 10_000.0, "clip_qkv": 8.0},
        "ffn_config": {"hidden_size": 64, "ffn_hidden_size": 48, "moe_top_k": 2},
    },
    "deepseek_ocr2": {"text_config": EXPERTS | {"mlp_layer_types": ["dense", "dense"]}},
    "diffusion_gemma": {
        "text_config": GEMMA4
        | {"num_experts": 4, "top_k_experts": 2}
        | {"moe_intermediate_size": 24}
    },
    "dots1": EXPERTS | {"n_routed_experts": 4, "n_shared_experts": 1},
    "dots3_note": {"text_config": LATENT},
    "dots3_note_text": LATENT,
    "ernie4_5_vl_moe": {
        "text_config": {"moe_intermediate_size": [24, 24]}
        | {"rope_parameters": ROPE | {"mrope_section": [3, 3, 2]}}
    },
    "falcon_h1": MAMBA | {"mamba_d_ssm": 128},
    "gemma3n_text": MIXED
    | {
        "num_hidden_layers": 4,
        "layer_types": [LOCAL, FULL, LOCAL, FULL],
        "num_kv_shared_layers": 2,
        "vocab_size_per_layer_input": 97,
        "hidden_size_per_layer_input": 8,
        "activation_sparsity_pattern": [0.0] * 4,
        "laurel_rank": 8,
        "intermediate_size": [48] * 4,
    },
    "gemma4": {"text_config": GEMMA4},
    "gemma4_text": GEMMA4,
    "gemma4_unified": {"text_config": GEMMA4},
    "gemma4_unified_text": GEMMA4,
    "glm5_next": {"text_config": LATENT | {"qk_rope_head_dim": 0}},
    "glm46v": {"text_config": QWEN_VL},
    "glm4v": {"text_config": QWEN_VL},
    "glm4v_moe": {
        "text_config": {
            "rope_parameters": ROPE | {"mrope_section": [1, 1, 2], "partial_rotary_factor": 0.5}
        }
    },
    "glmga": {"text_config": QWEN_VL},
    "glm_ocr": {"text_config": QWEN_VL},
    "gpt_neo": {"num_layers": 2, "attention_types": [[["global", "local"], 1]]},
    "gptj": {"rotary_dim": 8},
    "codegen": {"rotary_dim": 8},
    "granitemoehybrid": MAMBA | {"num_hidden_layers": 2, "layer_types": [LINEAR, FULL]},
    "granite_docling": {"vision_config": {"out_hidden_size": 64}},
    "hunyuan_vl": {"text_config": {"rope_parameters": ROPE | {"mrope_section": [2, 2, 2, 2]}}},
    "inkling2": {"vision_config": {"text_hidden_size": 64}},
    "jamba": {"num_hidden_layers": 2, "attn_layer_period": 2, "attn_layer_offset": 1}
    | {"use_mamba_kernels": False},
    "kimi_k25": {"text_config": LATENT},
    "lfm2_moe": {"layer_types": ["conv", FULL], "num_dense_layers": 0},
    "longcat_flash": {"num_layers": 1},
    "mamba2": {"num_heads": 8, "n_groups": 1, "state_size": 16},
    "mistral4": LATENT | {"head_dim": 32},
    "molmo2": {"adapter_config": {"vision_feature_layer": [0, 0]}},
    "nemotron_h_omni": {"vision_config": {"video_temporal_patch_size": 2}},
    "paddleocr_vl": {"text_config": QWEN_VL},
    "plbart": ENCODER | DECODER,
    "prophetnet": {"num_encoder_layers": 1, "num_decoder_layers": 2, "is_decoder": True},
    "qwen2_5_omni_thinker": {"text_config": QWEN_VL},
    "qwen2_5_vl": {"text_config": QWEN_VL},
    "qwen2_vl": {"text_config": QWEN_VL},
    "qwen4_exp": {"text_config": QSA},
    "qwen4_exp_text": QSA,
    "reformer": {"is_decoder": True, "axial_pos_embds_dim": [32, 32]},
    "recurrent_gemma": {"num_hidden_layers": 3, "attention_window_size": 10},
    "nemotron": {"num_key_value_heads": 2, "head_dim": 16},
    "zamba": ZAMBA,
    "zamba2": {
        "num_hidden_layers": 5,
        "layers_block_type": [LINEAR, "hybrid", LINEAR, "hybrid", LINEAR],
        "num_mem_blocks": 1,
    },
    "step3p7": {"text_config": {"sliding_window": 10}},
    "whisper": ENCODER | DECODER,
    "xlnet": {"n_layer": 2},
    "zaya": {"num_experts_per_tok": 1},
}
# Further members of families, which are not like the default: their family and their fields.
VARIANTS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "gemma3n_text, no shared keys": ("gemma3n_text", {"num_kv_shared_layers": 0}),
    "gemma4_text, shared keys": ("gemma4_text", SHARED),
    "gemma4, shared keys": ("gemma4", {"text_config": SHARED}),
    "granitemoehybrid, attention only": ("granitemoehybrid", {"layer_types": [FULL, FULL]}),
    "llama4_text, no chunks": ("llama4_text", {"layer_types": [FULL, FULL]}),
    "mimo_v2_flash, narrow values": ("mimo_v2_flash", NARROW_VALUES),
    "minimax_m3_vl_text, sparse": ("minimax_m3_vl_text", SPARSE),
    "ministral3, scaled from 64": ("ministral3", SCALED_ROPE),
    "mistral3, scaled from 64": ("mistral3", {"text_config": SCALED_ROPE}),
    "qwen2, own window": ("qwen2", MIXED | {"use_sliding_window": True}),
}
# Their classes take no mask but that of padding.
NO_CUSTOM_MASK = ("bloom", "mpt", "falcon", "gptj", "codegen", "gpt_neox_japanese")
# `generate` needs ids of tokens for sound and pictures, which small configurations lack.
NO_GENERATE = ("qwen2_5_omni_thinker", "qwen3_omni_moe_thinker")
# Their layers attend more than once a pass, so that one of them is not one layer of attention.
MANY_PASSES = ("hrm_text", "longcat_flash")
