"""Fields of a configuration of families that mix attention with convolutions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from streamingllm.errors import ModelLoadError
from streamingllm.models.gguf.metadata import ArchitectureMetadata
from streamingllm.models.gguf.windows import WINDOW

Metadata = ArchitectureMetadata
Fields = Mapping[str, Any]


def lfm2(metadata: Metadata) -> Fields:
    """Return LFM2's fields; layers without heads of keys and values are convolutions.

    Raises:
        ModelLoadError: the file is of an encoder, has local layers, or does not tell the kinds of
            layers.
    """
    _check_decoder(metadata)
    return {
        "layer_types": [
            "full_attention" if heads else "conv" for heads in kv_heads_by_layer(metadata)
        ],
        "conv_L_cache": metadata.integer("shortconv.l_cache"),
        "conv_bias": metadata.has_tensor("shortconv.in_proj.bias"),
        "block_auto_adjust_ff_dim": False,
    }


def lfm2moe(metadata: Metadata) -> Fields:
    """Return the fields of LFM2 with experts, whose weights always sum to one."""
    shared = dict(lfm2(metadata))
    shared.pop("block_auto_adjust_ff_dim")
    return {
        **shared,
        "num_dense_layers": metadata.integer("leading_dense_block_count", 0),
        "num_experts": metadata.integer("expert_count"),
        "num_experts_per_tok": metadata.integer("expert_used_count"),
        "moe_intermediate_size": metadata.integer("expert_feed_forward_length"),
        "use_expert_bias": metadata.has_tensor("exp_probs_b.bias"),
        "routed_scaling_factor": metadata.number("expert_weights_scale", 1.0),
        "norm_topk_prob": True,
    }


def kv_heads_by_layer(metadata: Metadata) -> list[int]:
    """Return the heads of keys and values of each layer, none where it has a state instead."""
    stated = metadata.array("attention.head_count_kv")
    if stated is None or len(stated) < metadata.num_layers:
        raise metadata.missing("attention.head_count_kv", stated)
    return stated[: metadata.num_layers]


def _check_decoder(metadata: Metadata) -> None:
    if not metadata.flag("attention.causal", True):
        raise ModelLoadError(
            f"{metadata.header.path}: {metadata.key('attention.causal')}=False describes an "
            "encoder; choose a file of a decoder"
        )
    if metadata.integer(WINDOW, 0):
        raise ModelLoadError(
            f"{metadata.header.path}: {metadata.key(WINDOW)} describes local layers, which "
            "transformers does not have in this family; choose a file without them"
        )
