"""Read far past the trained length under each position encoding: cache against text positions.

Run: `python -m benchmarks.positions --json benchmarks/results/positions.json`

Tiny decoders over bytes are trained on 64 positions, one for each encoding and seed. Each reads
1,024 bytes with 4 sinks and a window of 44. Distances are those inside the cache, or those of the
text; or each byte is predicted by a pass over the last 48. Intervals resample blocks of bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any

import torch
import typer

from benchmarks.pretraining.decoder import ENCODINGS, Arm, Decoder
from benchmarks.pretraining.streaming import (
    cache_distances,
    nll_of,
    recomputed_nll,
    text_distances,
)
from benchmarks.pretraining.training import held_out_ids, train
from streamingllm.cli.output import write_json
from streamingllm.cli.run_record import run_record
from streamingllm.evaluation.bootstrap import estimate, sums_of

_BLOCK = 32


def readings(decoder: Decoder, ids: torch.Tensor, sinks: int, window: int) -> dict[str, Any]:
    """Return the loss of each byte by kind of position."""
    size = len(ids)
    found = {
        "cache": nll_of(decoder, ids, cache_distances(size, sinks, window)),
        "text": nll_of(decoder, ids, text_distances(size, sinks, window)),
        "window only": nll_of(decoder, ids, cache_distances(size, 0, sinks + window)),
        "recompute": recomputed_nll(decoder, ids, sinks + window),
    }
    if decoder.arm.encoding == "learned":
        del found["cache"]  # a key holds its position: there is nothing to move
    return found


def summary(losses: Mapping[str, torch.Tensor], skip: int, seed: int) -> dict[str, Any]:
    """Return the mean loss after the first `skip` bytes, and differences from cache positions."""
    late = {name: nll[skip:] for name, nll in losses.items()}
    rows = {name: _interval(nll, seed) for name, nll in late.items()}
    base = "cache" if "cache" in late else "recompute"
    differences = {
        f"{name} less {base}": _interval(nll - late[base], seed)
        for name, nll in late.items()
        if name != base
    }
    return {"nll": rows, "differences": differences}


def _interval(values: torch.Tensor, seed: int) -> dict[str, Any]:
    blocks = values.split(_BLOCK)
    sums = sums_of([(float(block.sum()), float(len(block))) for block in blocks])
    return estimate(sums, seed=seed).to_json()


def main(
    json: Annotated[str, typer.Option(help="File of the results, - for standard output.")] = "-",
    steps: Annotated[int, typer.Option(help="Of training.")] = 400,
    seeds: Annotated[int, typer.Option(help="Models of each encoding.")] = 1,
    num_tokens: Annotated[int, typer.Option(help="That each of them reads.")] = 1024,
    sinks: Annotated[int, typer.Option(help="First tokens that are kept.")] = 4,
    window: Annotated[int, typer.Option(help="Recent tokens that are kept.")] = 44,
) -> None:
    """Train, read, and write the results after each model."""
    ids = held_out_ids(num_tokens)
    rows: dict[str, Any] = {}
    for seed in range(seeds):
        for encoding in ENCODINGS:
            arm = Arm(encoding)
            decoder = train(arm, steps=steps, seed=seed)
            losses = readings(decoder, ids, sinks, window)
            row = summary(losses, 2 * arm.trained_length, seed)
            rows[f"{encoding}, seed {seed}"] = {"arm": asdict(arm), **row}
            config = {"steps": steps, "num_tokens": num_tokens, "cache": f"{sinks}+{window}"}
            write_json(json, {"rows": rows, "config": config, **run_record(seed)})


if __name__ == "__main__":
    typer.run(main)
