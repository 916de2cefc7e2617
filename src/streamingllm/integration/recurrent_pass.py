"""Run a pass of a hybrid model in parts, so that each stream's states are exact after it.

A model decays a recurrent state at padding too, and a state shows no earlier token's state. So a
pass is cut where a stream's tokens end, and where a stream needs a checkpoint. In each part a
stream gets tokens only, or none at all.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from streamingllm.cache.stateful_ring_cache import StatefulRingCache
from streamingllm.errors import UnsupportedFeatureError
from streamingllm.integration.pass_inputs import apply_mask, tensor_input, valid_tokens

Run = Callable[[dict[str, Any]], Any]


def run_in_parts(
    run: Run, cache: StatefulRingCache, kwargs: dict[str, Any], *, stepwise: bool
) -> Any:
    """Run a pass of a decoder, all of it or nothing.

    Args:
        run: runs one part with the decoder's arguments.
        cache: has recurrent states.
        kwargs: the decoder's arguments for the whole pass.
        stepwise: whether the model continues a state right with single tokens only.

    Returns:
        what the decoder returns for the whole pass.

    Raises:
        UnsupportedFeatureError: a pass in parts is asked for more than hidden states.
    """
    assert cache.states is not None
    inputs, mask = tensor_input((), kwargs), kwargs.get("attention_mask")
    valid = valid_tokens(mask, inputs)
    apply_mask(mask, inputs, cache)
    ids = None if inputs.is_floating_point() else inputs
    counts = _counts(inputs, valid)
    cuts = _cuts(cache, counts, stepwise=stepwise)
    if len(cuts) == 1 and {*counts} <= {0, inputs.shape[1]}:
        cache.states.note(ids)
        return run(kwargs)
    num_columns = cache.positions.num_columns
    columns = _Columns(inputs, valid)
    outputs = []
    with cache.all_or_nothing():
        for first, stop in pairwise((0, *cuts)):
            part = columns.part(kwargs, first, stop)
            part["attention_mask"] = _part_mask(counts, stop - first, stop, inputs.device)
            cache.states.note(None if ids is None else part["input_ids"])
            outputs.append(run(part))
    cache.positions.num_columns = num_columns + inputs.shape[1]
    return columns.joined(outputs)


def _counts(inputs: Tensor, valid: Tensor | None) -> list[int]:
    """Return the tokens of each stream in the pass."""
    if valid is None:
        return [inputs.shape[1]] * inputs.shape[0]
    counts: list[int] = valid.sum(1).tolist()
    return counts


def _part_mask(
    counts: list[int], num_columns: int, stop: int, device: torch.device
) -> Tensor | None:
    """Return the mask of a part: streams have tokens in all of its columns or in none."""
    if min(counts) >= stop:
        return None
    active = torch.tensor(counts, device=device) >= stop
    return active[:, None].long().expand(-1, num_columns)


def _cuts(cache: StatefulRingCache, counts: list[int], *, stepwise: bool) -> list[int]:
    """Return the columns at which the parts of a pass end, ascending."""
    assert cache.states is not None
    history, stops = cache.states.history, sorted({*counts} - {0}) or [1]
    seen = cache.positions.per_stream(len(counts))
    since = [history.since_checkpoint(row, t) for row, t in enumerate(seen)]
    cuts: set[int] = {stops[-1]}
    first = 0
    for stop in stops:
        cuts.add(stop)
        for row, count in enumerate(counts):
            if count >= stop and history.interval:
                inner, since[row] = _checkpoints(stop - first, since[row], history.interval)
                cuts.update(first + cut for cut in inner)
        first = stop
    if stepwise:
        cuts.update(range(1 if cache.states.has_tokens else min(cuts), stops[-1]))
    return sorted(cuts)


def _checkpoints(num_tokens: int, since: int, interval: int) -> tuple[list[int], int]:
    """Return where a run of tokens is cut for checkpoints, and the tokens after the last one.

    Args:
        num_tokens: of the run.
        since: tokens since the last checkpoint; one is made at once where it is `interval`.
        interval: tokens between two checkpoints.
    """
    since = 0 if since >= interval else since
    if num_tokens > 2 * interval:
        cuts = [num_tokens - interval]
    else:
        cuts = list(range(interval - since, num_tokens, interval))
    return cuts, num_tokens - cuts[-1] if cuts else since + num_tokens


class _Columns:
    """Move the tokens of each stream to the front of a pass, and its outputs back.

    Args:
        inputs: ids [batch, seq] or vectors [batch, seq, hidden].
        valid: False at padding, bool, [batch, seq]; None without padding.
    """

    def __init__(self, inputs: Tensor, valid: Tensor | None) -> None:
        self._inputs = inputs
        batch, seq = inputs.shape[:2]
        self._order = torch.arange(seq, device=inputs.device).expand(batch, -1)
        if valid is not None:
            self._order = torch.argsort((~valid).int(), dim=1, stable=True)

    def part(self, kwargs: dict[str, Any], first: int, stop: int) -> dict[str, Any]:
        """Return the decoder's arguments for a run of columns."""
        named = dict(kwargs)
        shape, chosen = self._inputs.shape[:2], self._order[:, first:stop]
        for name, value in kwargs.items():
            if isinstance(value, Tensor) and value.shape[:2] == shape:
                index = chosen.view(*chosen.shape, *[1] * (value.ndim - 2))
                index = index.expand(*chosen.shape, *value.shape[2:])
                named[name] = value.gather(1, index.to(value.device))
        return named

    def joined(self, outputs: list[Any]) -> Any:
        """Return one output for those of all parts, which it takes apart."""
        whole = outputs[-1]
        for name in list(whole.keys()):
            parts = [output[name] for output in outputs]
            if name == "last_hidden_state":
                whole[name] = self._scattered(parts)
            elif name == "hidden_states":
                whole[name] = tuple(self._scattered(layer) for layer in zip(*parts, strict=True))
            elif name != "past_key_values":
                raise UnsupportedFeatureError(
                    f"{name}: a hybrid model's pass in parts returns hidden states only; set "
                    f"output_{name}=False"
                )
        return whole

    def _scattered(self, parts: Any) -> Tensor:
        hidden = torch.cat(list(parts), dim=1)
        order = self._order[:, : hidden.shape[1], None].expand(-1, -1, hidden.shape[-1])
        whole = hidden.new_zeros(*self._inputs.shape[:2], hidden.shape[-1])
        return whole.scatter_(1, order.to(hidden.device), hidden)
