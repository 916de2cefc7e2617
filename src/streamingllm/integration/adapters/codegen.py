"""CodeGen: GPT-J's attention with queries, values and keys in one matrix of four parts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from streamingllm.attention.forward_plan import ForwardPlan
from streamingllm.integration.adapters.base import AttentionAdapter
from streamingllm.integration.adapters.gptj import sinusoidal_encoding
from streamingllm.integration.register import stream_attention
from streamingllm.positions.rope import RopeEncoding

NUM_PARTS = 4  # written into transformers' `CodeGenAttention.forward`, for as many TPU cores


class CodeGenAdapter(AttentionAdapter):
    """Stream `CodeGenForCausalLM`."""

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
        """Do what `CodeGenAttention.forward` does, seeing what `plan` says."""
        # Each part holds the queries, then the values, then the keys of its heads.
        qvk = module.qkv_proj(hidden_states).unflatten(-1, (NUM_PARTS, 3, -1, module.head_dim))
        q, v, k = (x.flatten(2, 3).transpose(1, 2) for x in qvk.unbind(3))
        q, k = plan.place(module.layer_idx, q, k)
        k, v = layer_past.update(k, v, module.layer_idx)
        out, _ = stream_attention(module, q, k, v, plan)
        return module.out_proj(out.flatten(2)), None
