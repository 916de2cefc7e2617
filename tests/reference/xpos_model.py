"""A small decoder with xPos, which no family of transformers has (Sun et al., arXiv 2212.10554)."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.masking_utils import create_causal_mask
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from streamingllm.attention.plan import Chunk
from streamingllm.positions.xpos import XPosEncoding
from tests.reference.family import HEAD_DIM, HEADS, HIDDEN, VOCAB_SIZE, with_random_weights
from tests.reference.frequencies import frequencies
from tests.reference.layer_facts import LayerFacts


def log_decay(scale_base: float) -> Tensor:
    """Return ln(zeta) per position of each pair; section 3.1 of the paper, gamma = 0.4."""
    pair = torch.arange(HEAD_DIM // 2, dtype=torch.float64)
    return ((pair / (HEAD_DIM // 2) + 0.4) / 1.4).log() / scale_base


class TinyXPosConfig(PreTrainedConfig):
    model_type = "tiny-xpos"

    def __init__(self, scale_base: float = 32.0, **kwargs: Any) -> None:
        self.scale_base = scale_base
        self.vocab_size, self.num_hidden_layers, self.hidden_size = VOCAB_SIZE, 3, HIDDEN
        super().__init__(**kwargs)


class TinyXPosAttention(nn.Module):
    def __init__(self, config: TinyXPosConfig, layer_idx: int) -> None:
        super().__init__()
        self.config, self.layer_idx = config, layer_idx
        self.qkv = nn.Linear(HIDDEN, 3 * HIDDEN, bias=False)
        self.out = nn.Linear(HIDDEN, HIDDEN, bias=False)

    def forward(self, x: Tensor, position_ids: Tensor, mask: Any, cache: Any) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, HEADS, HEAD_DIM)).permute(2, 0, 3, 1, 4)
        q = self._placed(q, position_ids, 1.0)
        k = self._placed(k, position_ids, -1.0)
        if cache is not None:
            k, v = cache.update(k, v, self.layer_idx)
        attend = ALL_ATTENTION_FUNCTIONS[self.config._attn_implementation]
        out, _ = attend(self, q, k, v, mask, scaling=HEAD_DIM**-0.5)
        return self.out(out.flatten(2))

    def _placed(self, x: Tensor, position_ids: Tensor, sign: float) -> Tensor:
        positions = position_ids[:, None, :, None].double()
        scale = (sign * positions * log_decay(self.config.scale_base)).exp()
        cos = ((positions * frequencies()).cos() * scale).to(x.dtype)
        sin = ((positions * frequencies()).sin() * scale).to(x.dtype)
        first, second = x.chunk(2, dim=-1)
        return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


class TinyXPosPreTrainedModel(PreTrainedModel):
    config_class = TinyXPosConfig
    base_model_prefix = "model"
    _supports_sdpa = True


class TinyXPosModel(TinyXPosPreTrainedModel):
    def __init__(self, config: TinyXPosConfig) -> None:
        super().__init__(config)
        self.embed = nn.Embedding(VOCAB_SIZE, HIDDEN)
        layers = [TinyXPosAttention(config, i) for i in range(config.num_hidden_layers)]
        self.layers = nn.ModuleList(layers)
        self.norms = nn.ModuleList([nn.LayerNorm(HIDDEN) for _ in layers])
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor | None = None,
        attention_mask: Any = None,
        past_key_values: Any = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        x = self.embed(input_ids)
        if position_ids is None:
            position_ids = torch.arange(input_ids.shape[1])[None]
        mask = create_causal_mask(
            config=self.config,
            inputs_embeds=x,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
        )
        for norm, layer in zip(self.norms, self.layers, strict=True):
            x = x + layer(norm(x), position_ids, mask, past_key_values)
        return BaseModelOutputWithPast(last_hidden_state=x, past_key_values=past_key_values)


class TinyXPosForCausalLM(TinyXPosPreTrainedModel, GenerationMixin):
    def __init__(self, config: TinyXPosConfig) -> None:
        super().__init__(config)
        self.model = TinyXPosModel(config)
        self.lm_head = nn.Linear(HIDDEN, VOCAB_SIZE, bias=False)
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(self, input_ids: Tensor, **kwargs: Any) -> CausalLMOutputWithPast:
        out = self.model(input_ids, **kwargs)
        logits = self.lm_head(out.last_hidden_state)
        return CausalLMOutputWithPast(logits=logits, past_key_values=out.past_key_values)


class TinyXPosAdapter:
    """The model places queries and keys by itself, so it is told where a pass stands."""

    def encodings(self, model: PreTrainedModel, cache_size: int) -> tuple[XPosEncoding, ...]:
        encoding = XPosEncoding(frequencies(), log_decay=log_decay(model.config.scale_base))
        return (encoding,) * int(model.config.num_hidden_layers)

    def position_ids(self, chunk: Chunk) -> Tensor:
        return chunk.model_positions

    def install(self, model: PreTrainedModel) -> Any:
        return lambda: None


@cache
def xpos_model(dtype: torch.dtype = torch.float64, scale_base: float = 32.0) -> TinyXPosForCausalLM:
    with torch.random.fork_rng():
        model = TinyXPosForCausalLM(TinyXPosConfig(scale_base))
    return with_random_weights(model).to(dtype)


def xpos_facts(scale_base: float = 32.0) -> tuple[LayerFacts, ...]:
    elements = 2 * HEADS * HEAD_DIM
    layer = LayerFacts(frequencies(), log_decay=log_decay(scale_base), cached_elements=elements)
    return (layer,) * 3
