"""Time the same steps near the start of a stream and a million tokens later, in turn.

Run: `python -m benchmarks.flatness --json benchmarks/results/flatness.json`
"""

from __future__ import annotations

import statistics
import time
from typing import Annotated

import torch
import typer

from benchmarks.progress import shown
from streamingllm import Stream, StreamConfig, load_model
from streamingllm.cli.output import write_json
from streamingllm.cli.run_record import run_record
from streamingllm.evaluation.texts import open_documents, read_tokens

POSITIONS = (10_000, 1_000_000)


def main(
    rounds: Annotated[int, typer.Option(help="Times that each stream takes its turn.")] = 25,
    json: Annotated[str, typer.Option(help="Where results go; `-` prints them.")] = "-",
) -> None:
    """Let two streams, whose clocks differ, read and write in turn; compare their medians."""
    torch.set_num_threads(2)
    lm = load_model(dtype="bfloat16")
    ids = read_tokens(lm, open_documents("pydoc"), 2048)
    streams = {}
    for position in POSITIONS:
        streams[position] = Stream(lm.model, StreamConfig(4, 252))
        streams[position].feed(ids, logits="none")
        clock = streams[position]._strategy.cache_for("jump").positions
        clock.seen = [t + position for t in clock.seen]
    reading: dict[int, list[float]] = {position: [] for position in POSITIONS}
    writing: dict[int, list[float]] = {position: [] for position in POSITIONS}
    for _ in shown(range(rounds), "rounds"):
        for position, stream in streams.items():
            start = time.perf_counter()
            stream.feed(ids[:512], logits="none")
            middle = time.perf_counter()
            for _ in stream.generate(8):
                pass
            reading[position].append(middle - start)
            writing[position].append((time.perf_counter() - middle) / 8)
    near, far = POSITIONS
    results = {
        name: {
            "median_seconds": {p: statistics.median(times[p]) for p in POSITIONS},
            "far_over_near": statistics.median(
                b / a for a, b in zip(times[near], times[far], strict=True)
            ),
        }
        for name, times in (("read_512_tokens", reading), ("write_1_token", writing))
    }
    write_json(json, {"positions": POSITIONS, "rounds": rounds, **results, **run_record()})


if __name__ == "__main__":
    typer.run(main)
