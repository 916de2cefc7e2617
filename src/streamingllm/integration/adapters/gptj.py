"""GPT-J: interleaved rotary positions from a table of the trained length."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from streamingllm.attention.forward_plan import ForwardPlan
from streamingllm.integration.adapters.base import AttentionAdapter
from streamingllm.integration.register import stream_attention
from streamingllm.positions.rope import RopeEncoding

ROPE_THETA = 10_000  # written into transformers' `create_sinusoidal_positions`


def sinusoidal_encoding(rotary_dim: int) -> RopeEncoding:
    """Return the encoding behind a table that `create_sinusoidal_positions` has made."""
    inv_freq = 1.0 / ROPE_THETA ** (torch.arange(0, rotary_dim, 2) / rotary_dim)
    return RopeEncoding(inv_freq.double(), layout="interleaved")


class GptJAdapter(AttentionAdapter):
    """Stream `GPTJForCausalLM`."""

    def encodings(self, model: PreTrainedModel, cache_size: int) -> tuple[RopeEncoding, ...]:
        """Return the frequencies behind the model's table."""
        blocks: Any = model.get_decoder().h
        return (sinusoidal_encoding(blocks[0].attn.pos_embd_dim),) * len(blocks)

    def attention_modules(self, decoder: Any) -> Iterable[nn.Module]:
        """Return the attention modules of a decoder, layer by layer."""
        return [block.attn for block in decoder.h]

    def attend(
        self,
        module: Any,
        plan: ForwardPlan,
        hidden_states: Tensor,
        *,
        layer_past: Any,
        **kwargs: Any,
    ) -> tuple[Tensor, None]:
        """Do what `GPTJAttention.forward` does, seeing what `plan` says."""
        heads = (module.num_attention_heads, module.head_dim)
        q, k, v = (
            project(hidden_states).unflatten(-1, heads).transpose(1, 2)
            for project in (module.q_proj, module.k_proj, module.v_proj)
        )
        q, k = plan.place(module.layer_idx, q, k)
        k, v = layer_past.update(k, v, module.layer_idx)
        out, _ = stream_attention(module, q, k, v, plan)
        return module.out_proj(out.flatten(2)), None
