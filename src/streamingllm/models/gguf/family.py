"""Names of tensors and fields of a configuration in the GGUF files of one family."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from streamingllm.models.gguf.metadata import ArchitectureMetadata

if TYPE_CHECKING:  # the fields alone need no tensors
    from torch import Tensor

MoreFields = Callable[[ArchitectureMetadata], Mapping[str, Any]]
RowRule = Callable[[ArchitectureMetadata, int], "Tensor"]
ViewRule = Callable[[ArchitectureMetadata, "Tensor"], "Tensor"]
ValueRule = Callable[["Tensor"], "Tensor"]
UnreadRule = Callable[[ArchitectureMetadata, int, str], bool]


@dataclass(frozen=True)
class Place:
    """Say which parameter of a layer a tensor goes to, and to which part of it.

    Args:
        module: of the layer, or the parameter itself if `weight` and `bias` are given.
        weight: what follows `module` for a tensor that ends in `.weight`.
        bias: what follows it for one that ends in `.bias`.
        part: index of the part of the parameter's rows, and how many parts there are.
        alternates: rows of the parts alternate instead of following each other.
        transposed: the parameter has columns for the rows of the file.
        rows: rule for which row of the file is each row of the parameter.
        into: rule for which row of the parameter is each row of the file, where others have more.
        columns: rule for the order of columns.
        view: the part of the parameter, where it is none of equal rows.
        values: returns values of the parameter for those of the file.
        is_shifted: a normalisation whose weights the family shifts.
    """

    module: str
    weight: str = ".weight"
    bias: str = ".bias"
    part: tuple[int, int] = (0, 1)
    alternates: bool = False
    transposed: bool = False
    rows: RowRule | None = None
    into: RowRule | None = None
    columns: RowRule | None = None
    view: ViewRule | None = None
    values: ValueRule | None = None
    is_shifted: bool = True


Names = Mapping[str, str | Place]

ATTENTION: Names = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
}
QK_NORMS: Names = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
MLP: Names = {
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
NORMS: Names = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
DENSE: Names = {**NORMS, **ATTENTION, **MLP}
EXPERTS: Names = {
    "ffn_gate_inp": "mlp.gate",
    "ffn_gate_exps": Place("mlp.experts.gate_up_proj", "", "_bias", part=(0, 2)),
    "ffn_up_exps": Place("mlp.experts.gate_up_proj", "", "_bias", part=(1, 2)),
    "ffn_down_exps": Place("mlp.experts.down_proj", "", "_bias"),
}
OUTER: Names = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}


@dataclass(frozen=True)
class GgufFamily:
    """Describe the GGUF files of one architecture.

    Args:
        model_type: of transformers.
        names: places in a layer by the name of a tensor in a block.
        outer: places outside the layers by the name of a tensor.
        layers: prefix of a layer's modules, without its number.
        epsilon: metadata and field of what normalisations add to a variance.
        more: returns fields beyond those that all families have, or in their place.
        has_head_dim: whether the configuration has a field for the size of a head.
        norm_shift: added to the weights of normalisations.
        variant: a tensor of a block and the places that hold if the file has it.
        is_unread: tells of the layer and the name of a tensor whether the model does without it.
        stacked: tensors outside the layers that hold several matrices, one for each parameter.
    """

    model_type: str
    names: Names = field(default_factory=lambda: DENSE)
    outer: Names = field(default_factory=lambda: OUTER)
    layers: str = "model.layers"
    epsilon: tuple[str, str] = ("attention.layer_norm_rms_epsilon", "rms_norm_eps")
    more: MoreFields = lambda metadata: {}
    has_head_dim: bool = True
    norm_shift: float = 0.0
    variant: tuple[str, Names] | None = None
    is_unread: UnreadRule = lambda metadata, layer, name: False
    stacked: frozenset[str] = frozenset()

    def names_in(self, metadata: ArchitectureMetadata) -> Names:
        """Return the places in a layer for a file."""
        if self.variant is not None and metadata.has_tensor(self.variant[0]):
            return self.variant[1]
        return self.names
