"""Places of tensors in a layer, of families that mix attention with layers that carry a state."""

from __future__ import annotations

from streamingllm.models.gguf.family import (
    ATTENTION,
    EXPERTS,
    MLP,
    NORMS,
    OUTER,
    QK_NORMS,
    Names,
    Place,
)
from streamingllm.models.gguf.family_names import (
    GRANITE_EXPERTS,
    MLA,
    PAIRS,
    SHARED_EXPERT,
    SHARED_EXPERTS,
)
from streamingllm.models.gguf.rows import (
    THIRDS,
    by_group,
    grouped_gates,
    grouped_queries_keys_values,
    interleaved_keys,
    interleaved_queries,
    keys_then_tiled_values,
    tiled_values,
)
from streamingllm.models.gguf.values import decay_logarithm

LFM2: Names = {
    **ATTENTION,
    "attn_norm": "operator_norm",
    "attn_output": "self_attn.out_proj",
    "attn_q_norm": "self_attn.q_layernorm",
    "attn_k_norm": "self_attn.k_layernorm",
    "shortconv.conv": "conv.conv",
    "shortconv.in_proj": "conv.in_proj",
    "shortconv.out_proj": "conv.out_proj",
    "ffn_norm": "ffn_norm",
    "ffn_gate": "feed_forward.w1",
    "ffn_up": "feed_forward.w3",
    "ffn_down": "feed_forward.w2",
}
LFM2_OUTER: Names = {
    "token_embd": "model.embed_tokens",
    "token_embd_norm": "model.embedding_norm",
    "output": "lm_head",
}
LFM2_EXPERTS: Names = {
    "ffn_gate_inp": "feed_forward.gate",
    "exp_probs_b": Place("feed_forward.expert_bias", "", ""),
    "ffn_gate_exps": Place("feed_forward.experts.gate_up_proj", "", part=(0, 2)),
    "ffn_up_exps": Place("feed_forward.experts.gate_up_proj", "", part=(1, 2)),
    "ffn_down_exps": Place("feed_forward.experts.down_proj", ""),
}
_FUSED_EXPERTS: Names = {**EXPERTS, "ffn_gate_up_exps": Place("mlp.experts.gate_up_proj", "")}
_GATED_ATTENTION: Names = {
    "attn_norm": "input_layernorm",
    **ATTENTION,
    **QK_NORMS,
    "post_attention_norm": "post_attention_layernorm",
}
QWEN3NEXT: Names = {
    **_GATED_ATTENTION,
    **_FUSED_EXPERTS,
    **SHARED_EXPERT,
    "attn_qkv": Place("linear_attn.in_proj_qkvz", part=(0, 2), into=grouped_queries_keys_values),
    "attn_gate": Place("linear_attn.in_proj_qkvz", part=(1, 2), into=grouped_gates),
    "ssm_in": "linear_attn.in_proj_qkvz",  # of older files, which have both in one
    "ssm_ba": "linear_attn.in_proj_ba",
    "ssm_a": Place("linear_attn.A_log", values=decay_logarithm),
    "ssm_dt": Place("linear_attn.dt_bias", bias=""),
    "ssm_conv1d": "linear_attn.conv1d",
    "ssm_norm": Place("linear_attn.norm", is_shifted=False),
    "ssm_out": "linear_attn.out_proj",
}
_QWEN35: Names = {
    **_GATED_ATTENTION,
    "attn_qkv": Place("linear_attn.in_proj_qkv", rows=keys_then_tiled_values),
    "attn_gate": Place("linear_attn.in_proj_z", rows=tiled_values),
    "ssm_beta": Place("linear_attn.in_proj_b", rows=tiled_values),
    "ssm_alpha": Place("linear_attn.in_proj_a", rows=tiled_values),
    "ssm_a": Place("linear_attn.A_log", rows=tiled_values, values=decay_logarithm),
    "ssm_dt": Place("linear_attn.dt_bias", bias="", rows=tiled_values),
    "ssm_conv1d": Place("linear_attn.conv1d", rows=keys_then_tiled_values),
    "ssm_norm": Place("linear_attn.norm", is_shifted=False),
    "ssm_out": Place("linear_attn.out_proj", columns=tiled_values),
}
QWEN35: Names = {**_QWEN35, **MLP}
QWEN35_EXPERTS: Names = {**_QWEN35, **_FUSED_EXPERTS, **SHARED_EXPERT}


def _mamba2(module: str) -> Names:
    return {
        "ssm_in": f"{module}.in_proj",
        "ssm_conv1d": f"{module}.conv1d",
        "ssm_dt": Place(f"{module}.dt_bias", bias=""),
        "ssm_a": Place(f"{module}.A_log", values=decay_logarithm),
        "ssm_d": f"{module}.D",
        "ssm_norm": Place(f"{module}.norm", view=by_group),
        "ssm_out": f"{module}.out_proj",
    }


_SHARED_MLP: Names = {
    "ffn_gate": Place("shared_mlp.input_linear", part=(0, 2)),
    "ffn_up": Place("shared_mlp.input_linear", part=(1, 2)),
    "ffn_down": "shared_mlp.output_linear",
}
GRANITE_HYBRID: Names = {
    **NORMS,
    **ATTENTION,
    **PAIRS,
    **_mamba2("mamba"),
    **GRANITE_EXPERTS,
    **_SHARED_MLP,
    **{f"{name}_shexp": place for name, place in _SHARED_MLP.items()},
}
FALCON_H1: Names = {
    "attn_norm": "input_layernorm",
    **ATTENTION,
    **_mamba2("mamba"),
    "ffn_norm": Place("pre_ff_layernorm.weight", ""),
    "ffn_gate": "feed_forward.gate_proj",
    "ffn_up": "feed_forward.up_proj",
    "ffn_down": "feed_forward.down_proj",
}
FALCON_H1_OUTER: Names = {**OUTER, "output_norm": "model.final_layernorm"}
NEMOTRON_H: Names = {
    "attn_norm": "norm",
    "attn_q": Place("mixer.q_proj", rows=interleaved_queries),
    "attn_k": Place("mixer.k_proj", rows=interleaved_keys),
    "attn_v": "mixer.v_proj",
    "attn_output": "mixer.o_proj",
    **_mamba2("mixer"),
    "ffn_up": "mixer.up_proj",
    "ffn_down": "mixer.down_proj",
}
NEMOTRON_H_EXPERTS: Names = {
    **NEMOTRON_H,
    "ffn_gate_inp": "mixer.gate",
    "exp_probs_b": Place("mixer.gate.e_score_correction_bias", "", ""),
    "ffn_up_exps": Place("mixer.experts.up_proj", ""),
    "ffn_down_exps": Place("mixer.experts.down_proj", ""),
    "ffn_up_shexp": "mixer.shared_experts.up_proj",
    "ffn_down_shexp": "mixer.shared_experts.down_proj",
    "ffn_latent_down": "mixer.fc1_latent_proj",
    "ffn_latent_up": "mixer.fc2_latent_proj",
}
NEMOTRON_H_OUTER: Names = {
    "token_embd": "model.embeddings",
    "output_norm": "model.norm_f",
    "output": "lm_head",
}
JAMBA: Names = {
    "attn_norm": "input_layernorm",
    **ATTENTION,
    "ssm_in": "mamba.in_proj",
    "ssm_conv1d": "mamba.conv1d",
    "ssm_x": "mamba.x_proj",
    "ssm_dt": "mamba.dt_proj",
    "ssm_dt_norm": "mamba.dt_layernorm",
    "ssm_b_norm": "mamba.b_layernorm",
    "ssm_c_norm": "mamba.c_layernorm",
    "ssm_a": Place("mamba.A_log", values=decay_logarithm),
    "ssm_d": "mamba.D",
    "ssm_out": "mamba.out_proj",
    "ffn_norm": Place("pre_ff_layernorm.weight", ""),
    "ffn_gate": "feed_forward.gate_proj",
    "ffn_up": "feed_forward.up_proj",
    "ffn_down": "feed_forward.down_proj",
    "ffn_gate_inp": "feed_forward.router",
    "ffn_gate_exps": Place("feed_forward.experts.gate_up_proj", "", part=(0, 2)),
    "ffn_up_exps": Place("feed_forward.experts.gate_up_proj", "", part=(1, 2)),
    "ffn_down_exps": Place("feed_forward.experts.down_proj", ""),
}
JAMBA_OUTER: Names = {**OUTER, "output_norm": "model.final_layernorm"}
KIMI_LINEAR: Names = {
    **NORMS,
    **MLA,
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    **{
        f"ssm_conv1d_{letter}": Place("self_attn.conv1d", part=(index, 3), view=view)
        for index, (letter, view) in enumerate(zip("qkv", THIRDS, strict=True))
    },
    "ssm_a": Place("self_attn.forget_gate.A_log", values=decay_logarithm),
    "ssm_dt": Place("self_attn.forget_gate.dt_bias", bias=""),
    "ssm_f_a": "self_attn.forget_gate.f_a_proj",
    "ssm_f_b": "self_attn.forget_gate.f_b_proj",
    "ssm_beta": "self_attn.b_proj",
    "ssm_g_a": "self_attn.g_a_proj",
    "ssm_g_b": "self_attn.g_b_proj",
    "ssm_norm": "self_attn.o_norm",
    **MLP,
    **EXPERTS,
    **SHARED_EXPERTS,
}
