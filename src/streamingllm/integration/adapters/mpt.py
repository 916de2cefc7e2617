"""MPT: ALiBi with slopes of its own, optional clipping of queries, keys and values."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from streamingllm.attention.forward_plan import ForwardPlan
from streamingllm.errors import UnsupportedModelError
from streamingllm.integration.adapters.base import AttentionAdapter
from streamingllm.integration.register import stream_attention
from streamingllm.positions.alibi import AlibiEncoding


class MptAdapter(AttentionAdapter):
    """Stream `MptForCausalLM`."""

    def encodings(self, model: PreTrainedModel, cache_size: int) -> tuple[AlibiEncoding, ...]:
        """Return ALiBi with the slopes that the model computes.

        Raises:
            UnsupportedModelError: the checkpoint was trained without ALiBi.
        """
        if not model.config.attn_config.alibi:
            raise UnsupportedModelError(
                "mpt cannot stream with attn_config.alibi=False: its learned positions end at the "
                "trained length; use an MPT checkpoint with ALiBi"
            )
        decoder: Any = model.get_decoder()
        bias = decoder.build_mpt_alibi_tensor(decoder.num_heads, 2)
        return (AlibiEncoding(bias[:, 0, 1] - bias[:, 0, 0]),) * len(decoder.blocks)

    def attention_modules(self, decoder: Any) -> Iterable[nn.Module]:
        """Return the attention modules of a decoder, layer by layer."""
        return [block.attn for block in decoder.blocks]

    def attend(
        self,
        module: Any,
        plan: ForwardPlan,
        hidden_states: Tensor,
        *,
        past_key_values: Any,
        **kwargs: Any,
    ) -> tuple[Tensor, None]:
        """Do what `MptAttention.forward` does, seeing what `plan` says."""
        qkv = module.Wqkv(hidden_states)
        if module.clip_qkv:
            qkv = qkv.clamp(min=-module.clip_qkv, max=module.clip_qkv)
        q, k, v = qkv.unflatten(-1, (3, module.n_heads, -1)).permute(2, 0, 3, 1, 4)
        k, v = past_key_values.update(k, v, module.layer_idx)
        out, _ = stream_attention(module, q, k, v, plan, scaling=module.softmax_scale)
        return module.out_proj(out.flatten(2)), None
