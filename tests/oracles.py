"""Two independent derivations of a stream's logits; nothing here imports streamingllm.

`banded_logits` is one dense forward pass with an explicit matrix of distances inside the cache.
`token_by_token_logits` is a loop over unrotated keys that are rotated afresh at every step, which
is how the paper's reference code works (Xiao et al., arXiv 2309.17453, section 3.2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal
from unittest.mock import patch

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, DynamicCache, PreTrainedModel


@dataclass(frozen=True, eq=False)
class LayerFacts:
    """What one attention layer does with positions, stated by hand.

    Args:
        inv_freq: radians per position of each rotated pair, float64, [pairs]; None without RoPE.
        layout: whether pair i is dimensions (i, i + pairs) or (2i, 2i + 1).
        start: first rotated dimension of a query or key when attention sees it.
        cached: which of the two cached tensors holds the rotated dimensions.
        cached_start: first rotated dimension of that tensor.
        log_decay: xPos: a pair's scores are multiplied by exp(log_decay x distance), [pairs].
        slopes: ALiBi: slope x distance is subtracted from the scaled score, [num_heads].
        own_window: tokens that the model lets this layer see, None for all.
        cached_elements: numbers that the layer has to keep per token.
    """

    inv_freq: Tensor | None = None
    layout: Literal["half", "interleaved"] = "half"
    start: int = 0
    cached: Literal["keys", "values"] = "keys"
    cached_start: int = 0
    log_decay: Tensor | None = None
    slopes: Tensor | None = None
    own_window: int | None = None
    cached_elements: int = 0

    def pairs(self, x: Tensor, start: int) -> tuple[Tensor, Tensor]:
        """Return the first and second member of each rotated pair of `x`, [..., pairs]."""
        assert self.inv_freq is not None
        num_pairs = len(self.inv_freq)
        first = torch.arange(num_pairs) * (2 if self.layout == "interleaved" else 1)
        step = 1 if self.layout == "interleaved" else num_pairs
        return x[..., start + first], x[..., start + first + step]

    def moved(self, x: Tensor, positions: Tensor) -> Tensor:
        """Return cached entries [batch, heads, seq, dim] moved by `positions` [seq]."""
        if self.inv_freq is None:
            return x
        angles = positions.double()[:, None] * self.inv_freq
        cos, sin = angles.cos(), angles.sin()
        if self.log_decay is not None:
            shrink = (-positions.double()[:, None] * self.log_decay).exp()
            cos, sin = cos * shrink, sin * shrink
        first, second = self.pairs(torch.arange(x.shape[-1]), self.cached_start)
        out, a, b = x.clone(), x[..., first].double(), x[..., second].double()
        out[..., first] = (a * cos - b * sin).to(x.dtype)
        out[..., second] = (b * cos + a * sin).to(x.dtype)
        return out

    def dot_products(self, q: Tensor, k: Tensor, distance: Tensor) -> Tensor:
        """Return q . k, [batch, heads, queries, keys], each pair turned by its own distance."""
        if self.inv_freq is None:
            return torch.einsum("bhtd,bhjd->bhtj", q, k)
        stop = self.start + 2 * len(self.inv_freq)
        still = [d for d in range(q.shape[-1]) if not self.start <= d < stop]
        products = torch.einsum("bhtd,bhjd->bhtj", q[..., still], k[..., still])
        angles = distance.to(q.dtype)[..., None] * self.inv_freq.to(q.dtype)
        cos, sin = angles.cos(), angles.sin()
        if self.log_decay is not None:
            grow = (distance.to(q.dtype)[..., None] * self.log_decay).exp()
            cos, sin = cos * grow, sin * grow
        (q1, q2), (k1, k2) = self.pairs(q, self.start), self.pairs(k, self.start)
        equation = "bhtp,bhjp,tjp->bhtj"
        for a, b, factor in ((q1, k1, cos), (q2, k2, cos), (q1, k2, sin), (q2, k1, -sin)):
            products = products + torch.einsum(equation, a, b, factor)
        return products


def reaches(layers: Sequence[LayerFacts], n: int, m: int) -> list[tuple[int, int]]:
    """Return each layer's share of sinks and window, as DESIGN.md says for hybrids."""
    every_layer_windowed = all(layer.own_window is not None for layer in layers)
    shares = []
    for layer in layers:
        if layer.own_window is None or layer.own_window > m:
            shares.append((n, m))
        elif every_layer_windowed:
            shares.append((n, layer.own_window))
        else:
            shares.append((0, layer.own_window))
    return shares


def kept_tokens(t: int, sinks: Sequence[int], window: int) -> list[int]:
    """Return the stream positions that the query at `t` sees, in order, itself last."""
    return [j for j in range(t + 1) if j in sinks or j > t - window]


def distance_matrix(num_tokens: int, sinks: Sequence[int], window: int) -> Tensor:
    """Return distances inside the cache, int64, [queries, keys]; -1 where nothing is seen."""
    distance = torch.full((num_tokens, num_tokens), -1)
    for t in range(num_tokens):
        kept = kept_tokens(t, sinks, window)
        for place, j in enumerate(kept):
            distance[t, j] = len(kept) - 1 - place
    return distance


def attention(scores: Tensor, v: Tensor, sink_logits: Tensor | None) -> Tensor:
    """Return softmax(scores) v, [batch, heads, queries, dim]; a learned logit may join in."""
    columns = scores.shape[-1]
    if sink_logits is not None:
        learned = sink_logits.to(scores.dtype)[None, :, None, None]
        scores = torch.cat((scores, learned.expand(*scores.shape[:3], 1)), dim=-1)
    return scores.softmax(-1)[..., :columns] @ v


def repeated(x: Tensor, num_heads: int) -> Tensor:
    return x.repeat_interleave(num_heads // x.shape[1], dim=1)


def banded_logits(
    model: PreTrainedModel,
    layers: Sequence[LayerFacts],
    ids: Tensor,
    n: int,
    m: int,
    sink_positions: tuple[int, ...] | None = None,
) -> Tensor:
    """Return the logits of every token, [batch, seq, vocab], from one dense forward pass.

    All position ids are 0, so the model turns nothing; every score is then computed from the
    distance of its query and key.
    """
    sinks = tuple(range(n)) if sink_positions is None else sink_positions
    shares = reaches(layers, n, m)
    distances = {
        share: distance_matrix(ids.shape[1], sinks[: share[0]], share[1]) for share in shares
    }

    def attend(
        layer: int,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        scale: float,
        softcap: float | None = None,
        sink_logits: Tensor | None = None,
    ) -> Tensor:
        facts, distance = layers[layer], distances[shares[layer]]
        k, v = repeated(k, q.shape[1]), repeated(v, q.shape[1])
        scores = scale * facts.dot_products(q, k, distance)
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        if facts.slopes is not None:
            scores = scores - facts.slopes[:, None, None] * distance
        return attention(scores.masked_fill(distance < 0, -torch.inf), v, sink_logits)

    with torch.no_grad(), _attention_of(model, attend):
        zeros = torch.zeros_like(ids)
        positions = {} if model.config.model_type in ("bloom", "mpt") else {"position_ids": zeros}
        return model(ids, use_cache=False, **positions).logits


Attend = Callable[..., Tensor]


@contextmanager
def _attention_of(model: PreTrainedModel, attend: Attend) -> Iterator[None]:
    """Let `attend` compute the attention of every layer of `model`."""
    with ExitStack() as undo:
        bypass = _BYPASSES.get(model.config.model_type)
        if bypass is not None:
            bypass(model, attend, undo)
        else:

            def interface(
                module: Any,
                query: Tensor,
                key: Tensor,
                value: Tensor,
                attention_mask: None,
                scaling: float | None = None,
                softcap: float | None = None,
                s_aux: Tensor | None = None,
                **kwargs: Any,
            ) -> tuple[Tensor, None]:
                scale = query.shape[-1] ** -0.5 if scaling is None else scaling
                out = attend(module.layer_idx, query, key, value, scale, softcap, s_aux)
                return out.transpose(1, 2).contiguous(), None

            _name_attention(model, interface, undo)
        yield


def _name_attention(model: PreTrainedModel, interface: Any, undo: ExitStack) -> None:
    # A name without a mask function: models then make no mask at all.
    AttentionInterface.register("oracle", interface)
    configs = {id(m.config): m.config for m in model.modules() if hasattr(m, "config")}
    for config in configs.values():
        undo.enter_context(patch.object(config, "_attn_implementation_internal", "oracle"))


def _bypass_gptj(model: Any, attend: Attend, undo: ExitStack) -> None:
    for layer, block in enumerate(model.transformer.h):

        def _attn(
            q: Tensor, k: Tensor, v: Tensor, mask: Any, layer: int = layer, attn: Any = block.attn
        ) -> tuple[Tensor, None]:
            return attend(layer, q, k, v, attn.head_dim**-0.5), None

        undo.enter_context(patch.object(block.attn, "_attn", _attn))


def _bypass_falcon(model: Any, attend: Attend, undo: ExitStack) -> None:
    turns = iter(range(len(model.transformer.h)))

    def sdpa(q: Tensor, k: Tensor, v: Tensor, **kwargs: Any) -> Tensor:
        return attend(next(turns), q, k, v, q.shape[-1] ** -0.5)

    undo.enter_context(patch("torch.nn.functional.scaled_dot_product_attention", sdpa))


def _bypass_bloom(model: Any, attend: Attend, undo: ExitStack) -> None:
    for block in model.transformer.h:

        def forward(
            hidden: Tensor,
            residual: Tensor,
            *,
            attn: Any = block.self_attention,
            **kwargs: Any,
        ) -> tuple[Tensor, None]:
            batch, seq, _ = hidden.shape
            qkv = attn.query_key_value(hidden).view(batch, seq, attn.num_heads, 3, attn.head_dim)
            q, k, v = qkv.permute(3, 0, 2, 1, 4)
            out = attend(attn.layer_idx, q, k, v, attn.head_dim**-0.5)
            return attn.dense(out.transpose(1, 2).flatten(2)) + residual, None

        undo.enter_context(patch.object(block.self_attention, "forward", forward))


def _bypass_mpt(model: Any, attend: Attend, undo: ExitStack) -> None:
    for layer, block in enumerate(model.transformer.blocks):

        def forward(
            hidden: Tensor, *, layer: int = layer, attn: Any = block.attn, **kwargs: Any
        ) -> tuple[Tensor, None]:
            qkv = attn.Wqkv(hidden)
            if attn.clip_qkv is not None:
                qkv = qkv.clamp(-attn.clip_qkv, attn.clip_qkv)
            heads = [x.unflatten(2, (attn.n_heads, -1)).transpose(1, 2) for x in qkv.chunk(3, 2)]
            out = attend(layer, *heads, attn.softmax_scale)
            return attn.out_proj(out.transpose(1, 2).flatten(2)), None

        undo.enter_context(patch.object(block.attn, "forward", forward))


_BYPASSES: dict[str, Callable[[Any, Attend, ExitStack], None]] = {
    "gptj": _bypass_gptj,
    "falcon": _bypass_falcon,
    "bloom": _bypass_bloom,
    "mpt": _bypass_mpt,
}


class UnrotatedCache(DynamicCache):
    """Hold the tokens that the next query sees, unrotated, and rotate them at every step.

    The query stands at cache position `place`; what it sees stands at the places before it.
    """

    def __init__(self, layers: Sequence[LayerFacts], n: int, m: int, sinks: Sequence[int]) -> None:
        super().__init__()
        self.facts = layers
        self.shares = reaches(layers, n, m)
        self.longest = (n, m) if (n, m) in self.shares else max(self.shares, key=sum)
        self.sinks = tuple(sinks)
        self.t = 0
        self.held: dict[int, list[tuple[int, Tensor, Tensor]]] = {}

    @property
    def place(self) -> int:
        """Cache position of the query at stream position t."""
        n, window = self.longest
        return len(kept_tokens(self.t, self.sinks[:n], window)) - 1

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        facts, (n, window) = self.facts[layer_idx], self.shares[layer_idx]
        k, v = self._moved(facts, key_states, value_states, torch.tensor([-self.place]))
        seen = kept_tokens(self.t, self.sinks[:n], window)
        held = [*self.held.get(layer_idx, []), (self.t, k, v)]
        held = [entry for entry in held if entry[0] in seen]
        self.held[layer_idx] = held
        places = self.place - len(held) + 1 + torch.arange(len(held))
        _, all_keys, all_values = zip(*held, strict=True)
        keys, values = torch.cat(all_keys, dim=2), torch.cat(all_values, dim=2)
        return self._moved(facts, keys, values, places)

    def _moved(
        self, facts: LayerFacts, k: Tensor, v: Tensor, positions: Tensor
    ) -> tuple[Tensor, Tensor]:
        if facts.cached == "keys":
            return facts.moved(k, positions), v
        return k, facts.moved(v, positions)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.place

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        return self.place + query_length, 0


def _see_everything(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    key, value = repeated(key, query.shape[1]), repeated(value, query.shape[1])
    scores = query @ key.transpose(-1, -2) * scale
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    return attention(scores, value, s_aux).transpose(1, 2).contiguous(), None


@contextmanager
def _pinned(model: PreTrainedModel, layers: Sequence[LayerFacts]) -> Iterator[None]:
    """Keep rotary modules whose frequencies depend on a text's length to those of `layers`."""
    with ExitStack() as undo:
        for module in model.modules():
            if getattr(module, "rope_type", None) in ("dynamic", "longrope"):
                undo.enter_context(patch.object(module, "rope_type", "default"))
                assert layers[0].inv_freq is not None
                inv_freq = layers[0].inv_freq.to(module.inv_freq)
                undo.enter_context(patch.dict(module._buffers, {"inv_freq": inv_freq}))
        yield


def token_by_token_logits(
    model: PreTrainedModel,
    layers: Sequence[LayerFacts],
    ids: Tensor,
    n: int,
    m: int,
    sink_positions: tuple[int, ...] | None = None,
) -> Tensor:
    """Return the logits of every token, [batch, seq, vocab], from one forward pass per token."""
    sinks = tuple(range(n)) if sink_positions is None else sink_positions
    cache = UnrotatedCache(layers, n, m, sinks)
    logits = []
    with ExitStack() as undo:
        undo.enter_context(torch.no_grad())
        undo.enter_context(_pinned(model, layers))
        if model.config.model_type not in _BYPASSES:
            _name_attention(model, _see_everything, undo)
        for t in range(ids.shape[1]):
            cache.t = t
            place = {"position_ids": torch.full((ids.shape[0], 1), cache.place)}
            if model.config.model_type in ("bloom", "mpt"):
                place = {}
            out = model(ids[:, t : t + 1], past_key_values=cache, use_cache=True, **place)
            logits.append(out.logits)
    return torch.cat(logits, dim=1)
