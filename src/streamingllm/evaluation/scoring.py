"""Score tokens and answers on a stream: log-likelihood, greedy answers, integers."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from streamingllm.evaluation.perplexity import token_nll

if TYPE_CHECKING:
    from streamingllm.models import LanguageModel
    from streamingllm.stream import Stream


@dataclass(frozen=True)
class Answer:
    """A greedy answer.

    Args:
        text: without special tokens.
        token_ids: without the one that ended it.
        is_complete: False where the bound on tokens ended it.
    """

    text: str
    token_ids: list[int]
    is_complete: bool


def feed_scored(stream: Stream, ids: Tensor) -> Tensor:
    """Feed tokens and return the negative log-likelihood of each that could be predicted.

    Args:
        stream: continued; its cache afterwards holds the tokens.
        ids: int64, [seq].

    Returns:
        float32, [seq]; [seq - 1] if the stream was empty.
    """
    parts = []
    for chunk in ids.split(stream.config.chunk_size):
        before = [stream.next_logits[None]] if stream.num_seen_tokens else []
        logits = stream.feed(chunk)
        rows = torch.cat([*before, logits[:-1]])
        parts.append(token_nll(rows, chunk[len(chunk) - len(rows) :]))
    return torch.cat(parts)


def nll_of(stream: Stream, ids: Tensor) -> float:
    """Return the negative log-likelihood of tokens that follow; the stream stays as it is."""
    return float(feed_scored(stream.fork(), ids).sum())


def answer_greedily(
    stream: Stream, lm: LanguageModel, max_new_tokens: int, is_complete: Callable[[str], bool]
) -> Answer:
    """Generate a greedy answer on a fork; the stream stays as it is.

    Args:
        stream: has been fed.
        lm: whose tokens that end a text end the answer.
        max_new_tokens: bound on the answer.
        is_complete: called with the answer's text after each token; ends it.
    """
    tokens: list[int] = []
    text = ""
    ends = lm.eos_token_ids
    for token in stream.fork().generate(max_new_tokens, stop_token_ids=ends):
        if token in ends:
            return Answer(text, tokens, is_complete=True)
        tokens.append(token)
        text = lm.decode(tokens)
        if is_complete(text):
            return Answer(text, tokens, is_complete=True)
    return Answer(text, tokens, is_complete=False)


def ends_line(text: str) -> bool:
    """Tell whether a text has a first line with content that ends."""
    return "\n" in text.lstrip()


def ends_line_or_bracket(text: str) -> bool:
    """Tell whether a text has a line that ends or an integer in `<` and `>`."""
    return ends_line(text) or re.search(r"<\s*\d+\s*>", text) is not None


def first_line_of(text: str) -> str:
    """Return the first line that has content, without space around it."""
    lines = text.strip().splitlines()
    return lines[0].strip() if lines else ""


def first_bracketed_integer(text: str) -> int | None:
    """Return the first integer that follows a `<`."""
    found = re.search(r"<\s*(\d+)", text)
    return None if found is None else int(found[1])


def last_integer(text: str) -> int | None:
    """Return the last integer of a text, commas within it left out, as LongEval scores."""
    found = re.findall(r"\d+", re.sub(r"(?<=\d),(?=\d)", "", text))
    return int(found[-1]) if found else None
