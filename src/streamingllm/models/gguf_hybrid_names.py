"""Places of tensors in a layer, of families that mix attention with layers that carry a state."""

from __future__ import annotations

from streamingllm.models.gguf_family import (
    ATTENTION,
    EXPERTS,
    MLP,
    QK_NORMS,
    Names,
    Place,
)
from streamingllm.models.gguf_family_names import SHARED_EXPERT
from streamingllm.models.gguf_rows import (
    grouped_gates,
    grouped_queries_keys_values,
    keys_then_tiled_values,
    tiled_values,
)
from streamingllm.models.gguf_values import decay_logarithm

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
