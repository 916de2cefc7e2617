"""Two independent derivations of a stream's logits; nothing here imports streamingllm.

`banded_logits` is one dense forward pass with an explicit matrix of distances inside the cache.
`token_by_token_logits` is a loop over unrotated keys that are rotated afresh at every step, which
is how the paper's reference code works (Xiao et al., arXiv 2309.17453, section 3.2).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from tests.reference.layer_facts import (
    Blocks,
    LayerFacts,
    Turns,
    distance_matrix,
    kept_tokens,
    reaches,
)
from tests.reference.replaced_attention import BYPASSES, name_attention, replaced_attention


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
    turns: Turns | Blocks | None = None,
) -> Tensor:
    """Return the logits of every token, [batch, seq, vocab], from one dense forward pass.

    All position ids are 0, so the model turns nothing; every score is then computed from the
    distance of its query and key.
    """
    sinks = tuple(range(n)) if sink_positions is None else sink_positions
    shares = reaches(layers, n, m)
    distances = {
        share: distance_matrix(ids.shape[1], sinks[: share[0]], share[1], turns) for share in shares
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

    with torch.no_grad(), replaced_attention(model, attend):
        zeros = torch.zeros_like(ids)
        positions = {} if model.config.model_type in ("bloom", "mpt") else {"position_ids": zeros}
        return model(ids, use_cache=False, **positions).logits


class UnrotatedCache(DynamicCache):
    """Hold the tokens that the next query sees, unrotated, and rotate them at every step.

    The query stands at cache position `place`; what it sees stands at the places before it.
    """

    def __init__(
        self,
        layers: Sequence[LayerFacts],
        n: int,
        m: int,
        sinks: Sequence[int],
        turns: Turns | Blocks | None,
    ) -> None:
        super().__init__()
        self.turns = turns
        self.facts = layers
        self.shares = reaches(layers, n, m)
        self.longest = (n, m) if (n, m) in self.shares else max(self.shares, key=sum)
        self.sinks = tuple(sinks)
        self.t = 0
        self.held: dict[int, tuple[list[int], Tensor, Tensor]] = {}

    @property
    def place(self) -> int:
        """Cache position of the query at stream position t."""
        n, window = self.longest
        return len(kept_tokens(self.t, self.sinks[:n], window, self.turns)) - 1

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        facts, (n, window) = self.facts[layer_idx], self.shares[layer_idx]
        k, v = self._moved(facts, key_states, value_states, torch.tensor([-self.place]))
        times = [self.t]
        if layer_idx in self.held:
            earlier, old_keys, old_values = self.held[layer_idx]
            times = [*earlier, self.t]
            k, v = torch.cat((old_keys, k), dim=2), torch.cat((old_values, v), dim=2)
        seen = set(kept_tokens(self.t, self.sinks[:n], window, self.turns))
        stay = [column for column, time in enumerate(times) if time in seen]
        times, k, v = [times[column] for column in stay], k[:, :, stay], v[:, :, stay]
        self.held[layer_idx] = times, k, v
        places = self.place - len(times) + 1 + torch.arange(len(times))
        return self._moved(facts, k, v, places)

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


def logits_token_by_token(
    model: PreTrainedModel,
    layers: Sequence[LayerFacts],
    ids: Tensor,
    n: int,
    m: int,
    sink_positions: tuple[int, ...] | None = None,
    turns: Turns | Blocks | None = None,
) -> Iterator[Tensor]:
    """Yield the logits after each token of `ids` [batch, seq], each [batch, vocab].

    The model is as it was before once the iterator has ended or is closed.
    """
    sinks = tuple(range(n)) if sink_positions is None else sink_positions
    cache = UnrotatedCache(layers, n, m, sinks, turns)
    with ExitStack() as undo:
        undo.enter_context(_pinned(model, layers))
        if model.config.model_type not in BYPASSES:
            name_attention(model, _see_everything, undo)
        for t in range(ids.shape[1]):
            cache.t = t
            place = {"position_ids": torch.full((ids.shape[0], 1), cache.place)}
            if model.config.model_type in ("bloom", "mpt"):
                place = {}
            with torch.no_grad():
                out = model(ids[:, t : t + 1], past_key_values=cache, use_cache=True, **place)
            yield out.logits[:, 0]


def token_by_token_logits(*arguments: Any, **keywords: Any) -> Tensor:
    """Return the logits of every token, [batch, seq, vocab]; see `logits_token_by_token`."""
    return torch.stack(list(logits_token_by_token(*arguments, **keywords)), dim=1)
