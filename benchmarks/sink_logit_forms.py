"""Forms that change how much the sinks weigh, put into plain attention for an experiment.

With S for the sinks and W for the window, the sinks' share of a query is m = Z_S / (Z_S + Z_W). A
form moves logit m = log Z_S - log Z_W. No form can reorder the tokens of the window.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from streamingllm.attention import dispatch, windowed


@dataclass
class Calibration:
    """Per layer and head, means over queries whose context is whole; float32, [layers, heads].

    Attributes:
        sink_logit: log Z_S - log (Z_W + Z_E), with E for the tokens between sinks and window.
        missing: what the sinks' logit has too much without those tokens, log (1 + Z_E / Z_W).
        evicted: log Z_E, relative to log Z_W.
    """

    sink_logit: Tensor
    missing: Tensor
    evicted: Tensor


@dataclass
class Form:
    """Change the scores of the sinks' columns, or let one column stand for evicted tokens.

    Args:
        bias: added to the sinks' logits, [layers, heads].
        most: a query's logit m is lowered to at most this, [layers, heads].
        evicted: log of the evicted tokens' weight relative to the window's, [layers, heads]; their
            value is the running mean of evicted values.
    """

    bias: Tensor | None = None
    most: Tensor | None = None
    evicted: Tensor | None = None


@dataclass
class Plain:
    """Attend in place of `dispatch._attend_plain`; passes have one block of queries a layer."""

    num_layers: int
    form: Form
    _calls: int = 0
    _sums: dict[int, Tensor] = field(default_factory=dict)
    _counts: dict[int, int] = field(default_factory=dict)

    def __call__(self, x: Any, rule: Any, dtype: torch.dtype) -> Tensor:
        """Return what the operands give under the form; see `dispatch._attend_plain`."""
        layer, self._calls = self._calls % self.num_layers, self._calls + 1
        n = x.num_sinks
        scores = dispatch._grouped_scores(x.q * rule.scale, x.k)
        if n:
            scores[..., :n] = dispatch._grouped_scores(x.q_for_sinks * rule.scale, x.k[:, :, :n])
        if x.added is not None:
            scores += x.added
        mean = self._mean_of_evicted(layer, x)
        if not n:
            return dispatch._grouped_product(scores.softmax(dim=-1), x.v)
        self._move_sinks(scores, layer, n)
        if self.form.evicted is None or mean is None:
            return dispatch._grouped_product(scores.softmax(dim=-1), x.v)
        total = scores[..., n:].logsumexp(dim=-1, keepdim=True)
        virtual = total + self.form.evicted[layer][None, :, None, None]
        weights = torch.cat((scores, virtual), dim=-1).softmax(dim=-1)
        group = scores.shape[1] // mean.shape[1]
        out = dispatch._grouped_product(weights[..., :-1], x.v)
        return out + weights[..., -1:] * mean.repeat_interleave(group, dim=1)[:, :, None]

    def _move_sinks(self, scores: Tensor, layer: int, n: int) -> None:
        if self.form.bias is not None:
            scores[..., :n] += self.form.bias[layer][None, :, None, None]
        if self.form.most is not None:
            logit = scores[..., :n].logsumexp(dim=-1) - scores[..., n:].logsumexp(dim=-1)
            excess = (logit - self.form.most[layer][None, :, None]).clamp(min=0)
            scores[..., :n] -= excess.nan_to_num(0.0)[..., None]

    def _mean_of_evicted(self, layer: int, x: Any) -> Tensor | None:
        """Return the mean value of what has left the window, [batch, kv_heads, dim]."""
        new = x.v[:, :, -x.q.shape[2] :]
        zero = new.new_zeros(new.shape[0], new.shape[1], new.shape[3])
        self._sums[layer] = self._sums.get(layer, zero) + new.sum(dim=2)
        self._counts[layer] = self._counts.get(layer, 0) + new.shape[2]
        num_left = self._counts[layer] - x.v.shape[2]
        return (self._sums[layer] - x.v.sum(dim=2)) / num_left if num_left > 0 else None


@dataclass
class Calibrator:
    """Attend to everything, and note how much sinks, window and the rest weigh."""

    num_layers: int
    num_sinks: int
    window_size: int
    skip: int
    _calls: int = 0
    _logs: list[list[Tensor]] = field(default_factory=list)

    def __call__(self, x: Any, rule: Any, dtype: torch.dtype) -> Tensor:
        """Return plain attention over a cache that has evicted nothing."""
        layer, self._calls = self._calls % self.num_layers, self._calls + 1
        scores = dispatch._grouped_scores(x.q * rule.scale, x.k) + x.added
        self._note(layer, scores)
        return dispatch._grouped_product(scores.softmax(dim=-1), x.v)

    def _note(self, layer: int, scores: Tensor) -> None:
        queries, columns = scores.shape[-2:]
        if columns - queries < self.skip:
            return
        column = torch.arange(columns)
        position = torch.arange(columns - queries, columns)[:, None]
        is_sink = (column < self.num_sinks).expand(queries, -1)
        is_recent = (column > position - self.window_size) & (column <= position)
        parts = (is_sink, is_recent & ~is_sink, ~is_sink & ~is_recent & (column <= position))
        logs = [scores.masked_fill(~part, -torch.inf).logsumexp(dim=-1)[0] for part in parts]
        while len(self._logs) <= layer:
            self._logs.append([])
        self._logs[layer].append(torch.stack(logs))

    def result(self) -> Calibration:
        """Return the means over all queries seen."""
        sinks, recent, rest = torch.stack([torch.cat(x, dim=-1) for x in self._logs]).unbind(dim=1)
        return Calibration(
            sink_logit=(sinks - torch.logaddexp(recent, rest)).mean(dim=-1),
            missing=(torch.logaddexp(recent, rest) - recent).mean(dim=-1),
            evicted=(rest - recent).mean(dim=-1),
        )


@contextmanager
def attending(attend: Plain | Calibrator) -> Iterator[None]:
    """Let every layer attend so."""
    with (
        patch.object(windowed, "can_attend", lambda *args: False),
        patch.object(dispatch, "_can_fuse", lambda *args: False),
        patch.object(dispatch, "_attend_plain", attend),
    ):
        yield
