"""What a family's GGUF files look like: its configuration's fields and its tensors' names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from streamingllm.models.gguf_metadata import ArchitectureMetadata

Fields = dict[str, Any]
MoreFields = Callable[[ArchitectureMetadata], Mapping[str, Any]]

ATTENTION = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
}
QK_NORMS = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
MLP = {
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
NORMS = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
DENSE = {**NORMS, **ATTENTION, **MLP}
OUTER = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}


@dataclass(frozen=True)
class GgufFamily:
    """Describe the GGUF files of one architecture.

    Args:
        model_type: of transformers.
        names: modules of a layer by the name of their tensors in a block.
        outer: modules outside the layers by the names of their tensors.
        layers: prefix of a layer's modules, without its number.
        epsilon: metadata and field of what normalisations add to a variance.
        more: returns fields beyond those that all families have.
        has_head_dim: whether the configuration has a field for the size of a head.
        interleaved: projections whose rows lie in llama.cpp's order of rotation.
        norm_shift: added to the weights of normalisations.
    """

    model_type: str
    names: Mapping[str, str] = field(default_factory=lambda: DENSE)
    outer: Mapping[str, str] = field(default_factory=lambda: OUTER)
    layers: str = "model.layers"
    epsilon: tuple[str, str] = ("attention.layer_norm_rms_epsilon", "rms_norm_eps")
    more: MoreFields = lambda metadata: {}
    has_head_dim: bool = True
    interleaved: tuple[str, ...] = ()
    norm_shift: float = 0.0
