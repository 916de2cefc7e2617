"""Generation of tokens: choose the next one of each stream, feed it, hand it on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from typing import Protocol

import torch
from torch import Tensor

from streamingllm.checks import check_integer
from streamingllm.errors import InputError
from streamingllm.kernels.threads import one_thread
from streamingllm.stream.next_token import TokenChooser
from streamingllm.stream.sampling import SamplingParams


class Rows(Protocol):
    """Protocol of the streams of a batch."""

    @property
    def next_logits_of_rows(self) -> Tensor:
        """Logits of each stream's next token, [batch, vocab]."""
        ...

    @property
    def recent_ids_of_rows(self) -> Sequence[Sequence[int]]:
        """Last tokens of each stream, equally many."""
        ...

    def feed_tokens(self, tokens: Tensor, active: Tensor | None) -> None:
        """Feed one token, int64, [batch], to each stream where `active`, bool, [batch], is True."""
        ...


def generate_rows(
    streams: Rows,
    max_new_tokens: int | None,
    *,
    sampling: SamplingParams,
    window_size: int,
    stop_token_ids: Iterable[int],
    generator: torch.Generator | None,
) -> Iterator[list[int | None]]:
    """Generate tokens; see `Stream.generate_batch`."""
    if max_new_tokens is not None:
        check_integer("max_new_tokens", max_new_tokens, 0, error=InputError)
    sampling.check_tokens_only()
    device = streams.next_logits_of_rows.device
    stop_ids = sorted({*stop_token_ids, *sampling.stop_token_ids})
    stops = torch.tensor(stop_ids, dtype=torch.int64, device=device)
    if generator is None and sampling.seed is not None:
        generator = torch.Generator(device).manual_seed(sampling.seed)
    chooser = TokenChooser(sampling, window_size, generator)
    return _generate(streams, max_new_tokens, chooser, stops)


def _generate(
    streams: Rows, max_new_tokens: int | None, chooser: TokenChooser, stops: Tensor
) -> Iterator[list[int | None]]:
    active: Tensor | None = None  # until a stream ends
    for _ in count() if max_new_tokens is None else range(max_new_tokens):
        recent = streams.recent_ids_of_rows if chooser.params.reads_recent else ()
        tokens = chooser.choose(streams.next_logits_of_rows, recent)
        chooser.append(tokens)
        streams.feed_tokens(tokens, active)
        yield _listed(tokens, active)
        if len(stops) == 0:
            continue
        goes_on = ~torch.isin(tokens, stops)
        active = goes_on if active is None else active & goes_on
        if not bool(active.any()):
            return
        if bool(active.all()):
            active = None


def _listed(tokens: Tensor, active: Tensor | None) -> list[int | None]:
    if active is None:
        return [*tokens.tolist()]
    pairs = zip(tokens.tolist(), active.tolist(), strict=True)
    return [token if is_active else None for token, is_active in pairs]


def last_logits(
    logits: Tensor, valid: Tensor | None, before: Tensor | None, *, is_last_only: bool
) -> Tensor:
    """Return the logits after each stream's last token, [batch, vocab], for the caller alone.

    Args:
        logits: of a pass, [batch, seq or 1, vocab].
        valid: False at padding, bool, [batch, seq]; None without padding.
        before: what was returned for the pass before, for streams without a token in this one.
        is_last_only: whether `logits` holds the last token only.
    """
    if valid is None:
        if is_last_only and not logits.is_inference():
            return logits[:, -1]
        with one_thread():
            return logits[:, -1].clone()
    columns = torch.arange(valid.shape[1], device=valid.device)
    last = torch.where(valid, columns, -1).max(dim=1).values
    rows = torch.arange(len(valid), device=valid.device)
    fresh = logits[rows, last.clamp(min=0)]
    if before is None:
        return fresh.clone()
    return torch.where((last >= 0)[:, None], fresh, before)
