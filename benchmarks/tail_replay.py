"""Measure the loss of a session that is restored from its token tail, not from a snapshot.

Run: `python -m benchmarks.tail_replay --json benchmarks/results/tail-replay.json`

One stream reads a text. At several places the tokens that follow are scored by a fork of it, which
an exact snapshot restores. They are scored again by new streams that were fed the pinned prefix and
the last tokens only, as `restore="tail"` does. Differences are paired.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.progress import shown
from streamingllm import LanguageModel, Stream, StreamConfig, load_model
from streamingllm.cli.output import write_json
from streamingllm.cli.run_record import run_record
from streamingllm.evaluation.perplexity import token_nll
from streamingllm.evaluation.texts import PYTHON_REFERENCE, open_documents, read_tokens

NUM_PINNED_TOKENS = 4
TAILS = (256, 512, 1024, 2048, 3072, 4096)
_SHARED = Path(__file__).parents[2] / "shared" / "data" / "moby-dick.txt"
_FIRST = 16  # tokens right after the restore, where a difference is greatest


class Restored:
    """Scores of the tokens after each place, by one way to restore.

    Attributes:
        nll: of each place, [tokens] in nats.
        agrees: of each place, whether the likeliest tokens are those of the snapshot, [tokens].
        seconds: spent on each restore.
    """

    def __init__(self) -> None:
        self.nll: list[NDArray[np.float32]] = []
        self.agrees: list[NDArray[np.bool_]] = []
        self.seconds: list[float] = []

    def add(
        self, stream: Stream, following: Tensor, exact: Tensor | None, seconds: float
    ) -> Tensor:
        """Score what follows; return the likeliest tokens."""
        before = stream.next_logits[None]
        logits = torch.cat((before, stream.feed(following)[:-1]))
        likeliest = logits.argmax(-1)
        self.nll.append(token_nll(logits, following).float().numpy())
        self.agrees.append((likeliest == (likeliest if exact is None else exact)).numpy())
        self.seconds.append(seconds)
        return likeliest


def replayed(lm: LanguageModel, ids: Tensor, place: int, tail: int, config: StreamConfig) -> Stream:
    """Return a stream that was fed the pinned prefix and the last `tail` tokens before a place."""
    stream = Stream(lm, config)
    stream.feed(ids[:NUM_PINNED_TOKENS], logits="none")
    stream.feed(ids[max(NUM_PINNED_TOKENS, place - tail) : place], logits="last")
    return stream


def measure(
    lm: LanguageModel,
    ids: Tensor,
    places: Sequence[int],
    tails: Sequence[int],
    num_scored: int,
    config: StreamConfig,
) -> tuple[Restored, dict[int, Restored]]:
    """Score what follows each place, by the snapshot and by each tail."""
    exact, by_tail = Restored(), {tail: Restored() for tail in tails}
    reader, at = Stream(lm, config), 0
    for place in shown(places, "places"):
        reader.feed(ids[at:place], logits="last")
        at = place
        following = ids[place : place + num_scored]
        began = time.perf_counter()
        fork = reader.fork()
        likeliest = exact.add(fork, following, None, time.perf_counter() - began)
        for tail, found in by_tail.items():
            began = time.perf_counter()
            stream = replayed(lm, ids, place, tail, config)
            found.add(stream, following, likeliest, time.perf_counter() - began)
    return exact, by_tail


def compared(exact: Restored, found: Restored) -> dict[str, Any]:
    """Return the loss of a way to restore, per token, over all places."""
    losses = [mine - other for mine, other in zip(found.nll, exact.nll, strict=True)]

    def mean_and_error(parts: Sequence[NDArray[np.float32]]) -> Mapping[str, float]:
        means = [float(part.mean(dtype=np.float64)) for part in parts]
        error = statistics.stdev(means) / math.sqrt(len(means)) if len(means) > 1 else math.nan
        return {"nats_per_token": statistics.fmean(means), "standard_error": error}

    return {
        "loss": mean_and_error(losses),
        f"loss_of_the_first_{_FIRST}": mean_and_error([part[:_FIRST] for part in losses]),
        "perplexity": math.exp(float(np.concatenate(found.nll).mean(dtype=np.float64))),
        "greatest_change_of_a_token": max(float(np.abs(part).max()) for part in losses),
        "likeliest_token_agrees": float(np.concatenate(found.agrees).mean()),
        "median_restore_seconds": statistics.median(found.seconds),
    }


def main(
    text: Annotated[str, typer.Option(help="A UTF-8 file, or pydoc.")] = "",
    cache_size: Annotated[int, typer.Option(help="Tokens that a session sees.")] = 1024,
    tail: Annotated[list[int] | None, typer.Option(help="Tokens replayed; repeat it.")] = None,
    places: Annotated[int, typer.Option(help="Places of the text to restore at.")] = 12,
    scored: Annotated[int, typer.Option(help="Tokens scored after each place.")] = 256,
    apart: Annotated[int, typer.Option(help="Tokens between two places.")] = 4096,
    dtype: Annotated[str, typer.Option(help="Of the model.")] = "float32",
    json: Annotated[str, typer.Option(help="File of the results, - for standard output.")] = "-",
) -> None:
    """Measure and write the results."""
    source = text or (str(_SHARED) if _SHARED.is_file() else PYTHON_REFERENCE)
    lm = load_model(dtype=dtype)
    tails = tail or TAILS
    first = max(*tails, cache_size)
    ids = read_tokens(lm, open_documents(source), first + places * apart + scored)
    config = StreamConfig.with_cache_size(cache_size, NUM_PINNED_TOKENS)
    chosen = [first + k * apart for k in range(places) if first + k * apart + scored <= len(ids)]
    exact, by_tail = measure(lm, ids, chosen, tails, scored, config)
    snapshot = float(np.concatenate(exact.nll).mean(dtype=np.float64))
    results = {
        "model": lm.name,
        "text": Path(source).name,
        "dtype": dtype,
        "cache_size": cache_size,
        "pinned_tokens": NUM_PINNED_TOKENS,
        "places": len(chosen),
        "tokens_scored_after_each": scored,
        "snapshot": {"perplexity": math.exp(snapshot)},
        "tails": {str(length): compared(exact, found) for length, found in by_tail.items()},
    }
    write_json(json, {**results, **run_record()})


if __name__ == "__main__":
    typer.run(main)
