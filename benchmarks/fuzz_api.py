"""Send random requests to a server: no 5xx, no hang, no growth of memory.

Run: `python -m benchmarks.fuzz_api --requests 100000 --json benchmarks/results/fuzz-api.json`

The server is `streamingllm serve` with a tiny random model and short answers. Requests are made of
its own OpenAPI document and that of Open Responses; a number and the seed make each of them. One of
a hundred opens a WebSocket instead and sends some frames. Every answer is checked against both
documents. A run that was stopped goes on at `--state`, with another server.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.progress import shown
from streamingllm.cli.output import write_json
from streamingllm.cli.run_record import run_record
from tests.reference.tiny_chat import write_tiny_chat
from tests.server.fuzz_run import fuzz_run
from tests.server.server_process import ServerProcess

# Stores are small, so that they are full early in the run and what grows after that is a leak.
OPTIONS = (
    *("--cache-size", "256", "--dtype", "float64", "--threads", "1", "--no-compile"),
    *("--max-streams", "8", "--host-memory", "4MB", "--disk", "8MB"),
    *("--default-max-tokens", "4", "--turn-seconds", "5", "--session-ttl-seconds", "60"),
    *("--max-responses", "500", "--max-requests-per-key", "100", "--log-level", "error"),
)
ROUND = 1000
NUM_AT_ONCE = 8


def measure(num_requests: int, seed: int, deadline_seconds: float, state: Path | None) -> Any:
    """Send all requests that `state` does not count yet, in rounds; memory is read after each."""
    found: dict[str, Any] = {"seed": seed, "num_done": 0, "seconds": 0.0, "tracebacks": 0}
    found |= {"by_status": {}, "succeeded": {}, "problems": [], "resident_megabytes": []}
    if state is not None and state.exists():
        found = json.loads(state.read_text())
        if found["seed"] != seed:
            raise typer.BadParameter(f"{state} is of --seed {found['seed']}; pass that seed")
        if found["num_done"] >= num_requests:
            return found
    with tempfile.TemporaryDirectory() as name:
        model = write_tiny_chat(Path(name) / "model")
        with ServerProcess(model, Path(name) / "data", *OPTIONS) as server:
            run = fuzz_run(server.url, str(model), seed, deadline_seconds)
            server_memory: list[float] = []
            found["resident_megabytes"].append(server_memory)
            before = dict(found)
            began = time.monotonic()
            rounds = range(found["num_done"], num_requests, ROUND)
            for first in shown(rounds, "requests"):
                stop = min(first + ROUND, num_requests)
                asyncio.run(run.send(range(first, stop), NUM_AT_ONCE))
                server_memory.append(round(server.process.memory_info().rss / 1e6, 1))
                tally = run.tally
                found["num_done"] = stop
                found["seconds"] = round(before["seconds"] + time.monotonic() - began, 1)
                found["by_status"] = Counter(before["by_status"]) + tally.by_status
                found["succeeded"] = Counter(before["succeeded"]) + tally.succeeded
                found["problems"] = before["problems"] + tally.problems
                num_tracebacks = server.log.read_text().count("Traceback")
                found["tracebacks"] = before["tracebacks"] + num_tracebacks
                if state is not None:
                    _replace(state, json.dumps(found))
    return found


def growth_of(resident: list[float]) -> dict[str, float]:
    """Compare the memory of a server in the last quarter of its life with that in the second."""
    quarter = max(1, len(resident) // 4)
    second, last = resident[quarter : 2 * quarter] or resident, resident[-quarter:]
    return {
        "first": resident[0],
        "median_of_second_quarter": statistics.median(second),
        "median_of_last_quarter": statistics.median(last),
        "last_over_second_quarter": round(statistics.median(last) / statistics.median(second), 4),
        "largest": max(resident),
    }


def main(
    requests: Annotated[int, typer.Option(help="Send so many.")] = 100_000,
    seed: Annotated[int, typer.Option(help="Seed of the requests.")] = 0,
    deadline: Annotated[float, typer.Option(help="Seconds after which a request hangs.")] = 60.0,
    state: Annotated[Path | None, typer.Option(help="File of a run to go on with.")] = None,
    json: Annotated[str, typer.Option(help="File of the results, - for standard output.")] = "-",
) -> None:
    """Send requests, and write the results; the exit code is 1 if one was answered wrongly."""
    found = measure(requests, seed, deadline, state)
    memory = found.pop("resident_megabytes")
    found["memory_megabytes"] = [growth_of(resident) for resident in memory if resident]
    found["resident_megabytes"] = memory
    found["num_problems"] = len(found["problems"])
    found["problems"] = found["problems"][:100]
    found |= {"options": " ".join(OPTIONS), "load_average": list(os.getloadavg())}
    write_json(json, {**found, **run_record(seed)})
    raise typer.Exit(int(bool(found["num_problems"] or found["tracebacks"])))


def _replace(path: Path, text: str) -> None:
    written = path.with_suffix(".new")
    written.write_text(text)
    written.replace(path)


if __name__ == "__main__":
    typer.run(main)
