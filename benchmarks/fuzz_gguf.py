"""Read 100,000 damaged GGUF headers: each is read or refused in one line, fast, in little memory.

Run: `python -m benchmarks.fuzz_gguf --json benchmarks/results/fuzz-gguf.json`
"""

from __future__ import annotations

import random
import resource
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.progress import shown
from streamingllm.cli.output import write_json
from streamingllm.cli.run_record import run_record
from tests.reference.family_gguf import write_family_gguf
from tests.reference.gguf_mutations import mutated, outcome
from tests.reference.gguf_sample import write_sample

SOURCES = ("sample", "llama", "gemma3", "deepseek2")
_HEADER_BYTES = 3000


def measure(num_mutants: int, seed: int, folder: Path) -> dict[str, Any]:
    """Read mutants of several files in turn and return counts, times and memory."""
    contents = [_source(name, folder / f"{name}.gguf") for name in SOURCES]
    generator, outcomes = random.Random(seed), Counter[str]()
    failures: list[str] = []
    slowest_seconds, mutant = 0.0, folder / "mutant.gguf"
    before = _peak_bytes()
    for number in shown(range(num_mutants), "headers"):
        content = contents[number % len(contents)]
        mutant.write_bytes(mutated(content, _HEADER_BYTES, generator))
        start = time.monotonic()
        try:
            outcomes[outcome(mutant)] += 1
        except Exception as error:
            outcomes["failed"] += 1
            failures.append(f"{number}: {error!r}"[:300])
        slowest_seconds = max(slowest_seconds, time.monotonic() - start)
    return {
        "outcomes": dict(outcomes),
        "failures": failures[:10],
        "slowest_seconds": slowest_seconds,
        "peak_memory_growth_bytes": _peak_bytes() - before,
    }


def _source(name: str, path: Path) -> bytes:
    if name == "sample":
        write_sample(path, num_tokens=1100)
    else:
        write_family_gguf(path, name)
    return path.read_bytes()


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def main(
    mutants: Annotated[int, typer.Option(help="headers to read")] = 100_000,
    seed: Annotated[int, typer.Option(help="of the changes")] = 0,
    json: Annotated[str | None, typer.Option(help="file for the results, - for stdout")] = None,
) -> None:
    """Read damaged GGUF headers and count what becomes of them.

    Example: python -m benchmarks.fuzz_gguf --mutants 100000 --json fuzz-gguf.json
    """
    with tempfile.TemporaryDirectory() as name:
        results = measure(mutants, seed, Path(name))
    typer.echo(f"{results['outcomes']}, slowest {results['slowest_seconds']:.3f} s", err=True)
    if json is not None:
        config = {"mutants": mutants, "seed": seed, "sources": SOURCES}
        write_json(json, {"config": config, **results, **run_record(seed)})
    if results["outcomes"].get("failed"):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
