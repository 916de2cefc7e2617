"""A plain reference: one model, one text, no cache."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.evaluation.tasks.evaluating import byte_lm


def nll_after(before: str, text: str) -> float:
    """Minus the log-likelihood of `text` after `before`."""
    start = len(byte_lm().encode(before))
    return nll_of_ids(byte_lm().encode(before + text), start)


def nll_of_ids(ids: Tensor, start: int) -> float:
    """Minus the log-likelihood of the ids from `start` on, by one dense pass."""
    with torch.no_grad():
        logits = byte_lm().model(input_ids=ids[None], use_cache=False).logits[0]
    found = logits.double().log_softmax(-1)
    return -sum(float(found[t - 1, ids[t]]) for t in range(start, len(ids)))


def greedy_after(before: str, num_tokens: int) -> str:
    """The text of the likeliest tokens after `before`."""
    ids = byte_lm().encode(before)
    return byte_lm().decode(greedy_ids(ids, num_tokens))


def greedy_ids(before: Tensor, num_tokens: int) -> Tensor:
    """The likeliest ids after `before`, one by one."""
    ids = before
    for _ in range(num_tokens):
        with torch.no_grad():
            logits = byte_lm().model(input_ids=ids[None], use_cache=False).logits
        ids = torch.cat([ids, logits[0, -1].argmax()[None]])
    return ids[len(before) :]


def assert_greedy(answer: str, before: str, max_tokens: int = 33) -> None:
    """Check that an answer is the text of some number of the likeliest tokens."""
    ids = greedy_ids(byte_lm().encode(before), max_tokens)
    assert answer in [byte_lm().decode(ids[:n]) for n in range(1, max_tokens)]
