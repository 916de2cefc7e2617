"""GPT-NeoX Japanese: rotary positions in part of a head, a bias that the layer adds itself."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from streamingllm.attention.forward_plan import ForwardPlan
from streamingllm.integration.adapters.base import AttentionAdapter
from streamingllm.integration.register import stream_attention
from streamingllm.positions.rope import RopeEncoding
from streamingllm.positions.tables import RotaryTable


class GptNeoxJapaneseAdapter(AttentionAdapter):
    """Stream `GPTNeoXJapaneseForCausalLM`."""

    def encodings(self, model: PreTrainedModel, cache_size: int) -> tuple[RopeEncoding, ...]:
        """Return the frequencies of the model's rotary module."""
        decoder: Any = model.get_decoder()
        table = RotaryTable(decoder.rotary_emb, layer_type=None, columns="concatenated")
        return (RopeEncoding(*table.frequencies(cache_size)),) * len(decoder.layers)

    def attention_modules(self, decoder: Any) -> Iterable[nn.Module]:
        """Return the attention modules of a decoder, layer by layer."""
        return [layer.attention for layer in decoder.layers]

    def attend(
        self,
        module: Any,
        plan: ForwardPlan,
        hidden_states: Tensor,
        *,
        layer_past: Any,
        **kwargs: Any,
    ) -> tuple[Tensor, None, Tensor | None]:
        """Do what `GPTNeoXJapaneseAttention.forward` does, seeing what `plan` says."""
        qkv = module.query_key_value(hidden_states)
        heads = qkv.unflatten(-1, (module.num_attention_heads, 3, module.head_size))
        q, k, v = (x.transpose(1, 2) for x in heads.unbind(3))
        q, k = plan.place(module.layer_idx, q, k)
        k, v = layer_past.update(k, v, module.layer_idx)
        out, _ = stream_attention(module, q, k, v, plan)
        return module.dense(out.flatten(2)), None, module.dense_bias
