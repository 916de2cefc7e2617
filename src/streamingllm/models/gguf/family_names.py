"""Places of tensors in a layer, of families that differ from the common ones."""

from __future__ import annotations

from streamingllm.models.gguf.family import (
    ATTENTION,
    DENSE,
    MLP,
    NORMS,
    OUTER,
    QK_NORMS,
    Names,
    Place,
)
from streamingllm.models.gguf.rows import (
    grouped_qkv,
    interleaved_keys,
    interleaved_queries,
    mla_keys,
    mla_values,
    stacked_qkv,
)

PAIRS: Names = {
    "attn_q": Place("self_attn.q_proj", rows=interleaved_queries),
    "attn_k": Place("self_attn.k_proj", rows=interleaved_keys),
}
LLAMA: Names = {**DENSE, **PAIRS}
SANDWICH: Names = {
    "attn_norm": "input_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
PER_LAYER: Names = {
    "inp_gate": "per_layer_input_gate",
    "proj": "per_layer_projection",
    "post_norm": "post_per_layer_input_norm",
}
PER_LAYER_OUTER: Names = {
    **OUTER,
    "per_layer_token_embd": "model.embed_tokens_per_layer",
    "per_layer_model_proj": "model.per_layer_model_projection",
    "per_layer_proj_norm": "model.per_layer_projection_norm",
}
GEMMA3N: Names = {
    **SANDWICH,
    **ATTENTION,
    **QK_NORMS,
    **MLP,
    **PER_LAYER,
    "altup_correct_coef": "altup.correction_coefs",
    "altup_correct_scale": Place("altup.correct_output_scale", ""),
    "altup_predict_coef": "altup.prediction_coefs",
    "altup_router": "altup.modality_router",
    "altup_router_norm": "altup.router_norm",
    "laurel_l": "laurel.linear_left",
    "laurel_r": "laurel.linear_right",
    "laurel_post_norm": "laurel.post_laurel_norm",
}
ALTUP: Names = {
    f"{stack}.{index}": f"model.{modules}.{index}"
    for stack, modules in (
        ("altup_proj", "altup_projections"),
        ("altup_unembd_proj", "altup_unembed_projections"),
    )
    for index in range(3)
}
GEMMA4: Names = {
    **SANDWICH,
    **ATTENTION,
    **QK_NORMS,
    **MLP,
    **PER_LAYER,
    "layer_output_scale": Place("layer_scalar", ""),
    "ffn_gate_inp": "router.proj",
    "ffn_gate_inp.scale": "router.scale",
    "ffn_gate_up_exps": Place("experts.gate_up_proj", ""),
    "ffn_gate_exps": Place("experts.gate_up_proj", "", part=(0, 2)),
    "ffn_up_exps": Place("experts.gate_up_proj", "", part=(1, 2)),
    "ffn_down_exps": Place("experts.down_proj", ""),
    "ffn_down_exps.scale": "router.per_expert_scale",
    "post_ffw_norm_1": "post_feedforward_layernorm_1",
    "post_ffw_norm_2": "post_feedforward_layernorm_2",
    "pre_ffw_norm_2": "pre_feedforward_layernorm_2",
}
POST_NORMS: Names = {
    "post_attention_norm": "post_attention_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
FUSED_GATE: Names = {"ffn_up": "mlp.gate_up_proj", "ffn_down": "mlp.down_proj"}
GLM4_NORMS: Names = {
    **NORMS,
    "post_attention_norm": "post_self_attn_layernorm",
    "post_ffw_norm": "post_mlp_layernorm",
}
SHARED_EXPERT: Names = {
    "ffn_gate_inp_shexp": "mlp.shared_expert_gate",
    "ffn_gate_shexp": "mlp.shared_expert.gate_proj",
    "ffn_up_shexp": "mlp.shared_expert.up_proj",
    "ffn_down_shexp": "mlp.shared_expert.down_proj",
}
SHARED_EXPERTS: Names = {
    "exp_probs_b": Place("mlp.gate.e_score_correction_bias", "", ""),
    "ffn_gate_shexp": "mlp.shared_experts.gate_proj",
    "ffn_up_shexp": "mlp.shared_experts.up_proj",
    "ffn_down_shexp": "mlp.shared_experts.down_proj",
}
MLA: Names = {
    "attn_q": "self_attn.q_proj",
    "attn_q_a": "self_attn.q_a_proj",
    "attn_q_a_norm": "self_attn.q_a_layernorm",
    "attn_q_b": "self_attn.q_b_proj",
    "attn_kv_a_mqa": "self_attn.kv_a_proj_with_mqa",
    "attn_kv_a_norm": "self_attn.kv_a_layernorm",
    "attn_kv_b": "self_attn.kv_b_proj",
    "attn_k_b": Place("self_attn.kv_b_proj", part=(0, 2), view=mla_keys),
    "attn_v_b": Place("self_attn.kv_b_proj", part=(1, 2), view=mla_values),
    "attn_output": "self_attn.o_proj",
}
GPT_OSS_GATE = "mlp.experts.gate_up_proj"
GPT_OSS_NORMS: Names = {
    "attn_norm": "input_layernorm",
    "post_attention_norm": "post_attention_layernorm",
}
GPT_OSS: Names = {
    **ATTENTION,
    **GPT_OSS_NORMS,
    "attn_sinks": Place("self_attn.sinks", ""),
    "ffn_gate_inp": "mlp.router",
    "ffn_gate_exps": Place(
        GPT_OSS_GATE, "", "_bias", part=(0, 2), alternates=True, transposed=True
    ),
    "ffn_up_exps": Place(GPT_OSS_GATE, "", "_bias", part=(1, 2), alternates=True, transposed=True),
    "ffn_down_exps": Place("mlp.experts.down_proj", "", "_bias", transposed=True),
}
FALCON: Names = {
    "attn_norm": "input_layernorm",
    "attn_qkv": Place("self_attention.query_key_value", rows=grouped_qkv),
    "attn_output": "self_attention.dense",
    "ffn_up": "mlp.dense_h_to_4h",
    "ffn_down": "mlp.dense_4h_to_h",
}
FALCON_40B: Names = {**FALCON, "attn_norm": "ln_mlp", "attn_norm_2": "ln_attn"}
HUNYUAN_NORMS: Names = {
    "attn_q_norm": "self_attn.query_layernorm",
    "attn_k_norm": "self_attn.key_layernorm",
}
GRANITE_EXPERTS: Names = {
    "ffn_gate_inp": "block_sparse_moe.router",
    "ffn_gate_exps": Place("block_sparse_moe.experts.gate_up_proj", "", part=(0, 2)),
    "ffn_up_exps": Place("block_sparse_moe.experts.gate_up_proj", "", part=(1, 2)),
    "ffn_down_exps": Place("block_sparse_moe.experts.down_proj", ""),
}
TRANSFORMER: Names = {
    "token_embd": "transformer.word_embeddings",
    "token_embd_norm": "transformer.word_embeddings_layernorm",
    "output_norm": "transformer.ln_f",
    "output": "lm_head",
}
BLOOM: Names = {
    **NORMS,
    **FALCON,
    "attn_qkv": Place("self_attention.query_key_value", rows=stacked_qkv),
}
NEOX: Names = {
    **NORMS,
    "attn_qkv": Place("attention.query_key_value", rows=stacked_qkv),
    "attn_output": "attention.dense",
    "ffn_up": "mlp.dense_h_to_4h",
    "ffn_down": "mlp.dense_4h_to_h",
}
NEOX_OUTER: Names = {
    "token_embd": "gpt_neox.embed_in",
    "output_norm": "gpt_neox.final_layer_norm",
    "output": "lm_head",
}
MPT: Names = {
    "attn_norm": "norm_1",
    "attn_qkv": "attn.Wqkv",
    "attn_output": "attn.out_proj",
    "ffn_norm": "norm_2",
    "ffn_up": "ffn.up_proj",
    "ffn_down": "ffn.down_proj",
}
MPT_OUTER: Names = {
    "token_embd": "transformer.wte",
    "output_norm": "transformer.norm_f",
    "output": "lm_head",
}
GPT2: Names = {
    "attn_norm": "ln_1",
    "attn_qkv": Place("attn.c_attn", transposed=True),
    "attn_output": Place("attn.c_proj", transposed=True),
    "ffn_norm": "ln_2",
    "ffn_up": Place("mlp.c_fc", transposed=True),
    "ffn_down": Place("mlp.c_proj", transposed=True),
}
GPT2_OUTER: Names = {
    "token_embd": "transformer.wte",
    "position_embd": "transformer.wpe",
    "output_norm": "transformer.ln_f",
    "output": "lm_head",
}
PHI: Names = {
    **ATTENTION,
    "attn_norm": "input_layernorm",
    "attn_output": "self_attn.dense",
    "ffn_up": "mlp.fc1",
    "ffn_down": "mlp.fc2",
}
PHI_OUTER: Names = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.final_layernorm",
    "output": "lm_head",
}
