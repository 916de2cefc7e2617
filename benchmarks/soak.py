"""Feed a million tokens, write twenty thousand, and watch what grows.

Run: `python -m benchmarks.soak --json benchmarks/results/soak.json`

Reported: cache bytes (must not change), resident memory after the first 50,000 tokens, and speed in
the first and last tenth, by the wall clock and by processor time (which other programs on the
machine disturb less).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any

import psutil
import torch
import typer

from benchmarks.progress import shown
from streamingllm import SamplingParams, Stream, StreamConfig, load_model
from streamingllm.cli.output import write_json
from streamingllm.cli.run_record import run_record
from streamingllm.evaluation.texts import open_documents, read_tokens


@dataclass
class Ledger:
    """Seconds, bytes and memory of one run, step by step."""

    stream: Stream
    wall_seconds: list[float] = field(default_factory=list)
    processor_seconds: list[float] = field(default_factory=list)
    cache_bytes: set[int] = field(default_factory=set)
    resident_bytes: dict[int, int] = field(default_factory=dict)
    process: psutil.Process = field(default_factory=psutil.Process)

    def run(self, step: Callable[[], object], done: int) -> None:
        """Time one step, after which `done` tokens have passed."""
        wall, processor = time.perf_counter(), time.process_time()
        step()
        self.wall_seconds.append(time.perf_counter() - wall)
        self.processor_seconds.append(time.process_time() - processor)
        self.cache_bytes.add(self.stream.nbytes)
        self.resident_bytes[done] = self.process.memory_info().rss

    def summary(self, tokens_per_step: int, settled_after: int) -> dict[str, Any]:
        """Return what changed between the first and the last tenth."""
        times = sorted(self.resident_bytes)
        settled = [self.resident_bytes[t] for t in times if t >= min(settled_after, times[-1])]
        return {
            "cache_bytes": sorted(self.cache_bytes),
            "resident_growth_bytes": settled[-1] - settled[0],
            "wall": _speeds(self.wall_seconds, tokens_per_step),
            "processor": _speeds(self.processor_seconds, tokens_per_step),
        }


def _speeds(seconds: list[float], tokens_per_step: int) -> dict[str, float]:
    tenth = max(1, len(seconds) // 10)
    first = statistics.median(seconds[:tenth])
    last = statistics.median(seconds[-tenth:])
    return {
        "first_tenth_tokens_per_second": tokens_per_step / first,
        "last_tenth_tokens_per_second": tokens_per_step / last,
        "last_over_first": first / last,
    }


def main(
    feed: Annotated[int, typer.Option(help="Tokens to read.")] = 1_000_000,
    write: Annotated[int, typer.Option(help="Tokens to generate.")] = 20_000,
    text: Annotated[str, typer.Option(help="A file or `pydoc`; repeated as needed.")] = "pydoc",
    window_size: Annotated[int, typer.Option(help="Recent tokens that are kept.")] = 1020,
    dtype: str = "bfloat16",
    threads: int = 2,
    json: Annotated[str, typer.Option(help="Where results go; `-` prints them.")] = "-",
) -> None:
    """Run the soak and write its figures as JSON."""
    torch.set_num_threads(threads)
    lm = load_model(dtype=dtype)
    ids = read_tokens(lm, open_documents(text))
    stream = Stream(lm.model, StreamConfig(num_sink_tokens=4, window_size=window_size))
    chunk = stream.config.chunk_size
    reading = Ledger(stream)
    for done in shown(range(chunk, feed + 1, chunk), "reading"):
        first = (done - chunk) % (len(ids) - chunk)
        part = ids[first : first + chunk]
        reading.run(lambda part=part: stream.feed(part, logits="none"), done)  # type: ignore[misc]
    seed = 0
    generator = torch.Generator().manual_seed(seed)
    tokens = stream.generate(write, sampling=SamplingParams(temperature=0.8), generator=generator)
    writing = Ledger(stream)
    for done in shown(range(1, write + 1), "writing"):
        writing.run(lambda: next(tokens), done)
    results = {
        "tokens_seen": stream.num_seen_tokens,
        "reading": {"tokens": feed, **reading.summary(chunk, 50_000)},
        "writing": {"tokens": write, **writing.summary(1, min(1000, write))},
    }
    settings = {"dtype": dtype, "text": text, "window_size": window_size}
    write_json(json, {**settings, **results, **run_record(seed)})


if __name__ == "__main__":
    typer.run(main)
