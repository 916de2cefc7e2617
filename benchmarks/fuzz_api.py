"""Send schemathesis' requests to a server: no 5xx, no hang, no growth of memory.

Run: `python -m benchmarks.fuzz_api --schemathesis schemathesis --examples 1000 --seconds 3600`

The server is `streamingllm serve` with a tiny random model and short answers. Memory is read after
a first pass, and again after the passes that follow.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import httpx2
import typer

from streamingllm.cli.output import write_json
from streamingllm.cli.run_record import run_record
from tests.reference.tiny_chat import write_tiny_chat
from tests.server.server_process import ServerProcess

OPTIONS = (
    *("--cache-size", "64", "--dtype", "float64", "--threads", "1", "--no-compile"),
    *("--max-streams", "8", "--host-memory", "1MB", "--disk", "4MB", "--no-page"),
    *("--default-max-tokens", "4", "--turn-seconds", "0.5", "--session-ttl-seconds", "60"),
    *("--log-level", "error"),
)
CHECKS = ("not_a_server_error",)


def fuzz(command: str, url: str, examples: int, seed: int, seconds: float) -> tuple[int, str]:
    """Make one pass over all operations; return its exit code and what it says at its end."""
    arguments = [
        *(command, "run", f"{url}/openapi.json", "--url", url, "--seed", str(seed)),
        *("--max-examples", str(examples), "--checks", ",".join(CHECKS)),
        *("--request-timeout", "20", "--generation-database", "none", "--no-color"),
        *("--phases", "examples,coverage,fuzzing", "--workers", "4", "--continue-on-failure"),
        *("--max-time", str(int(seconds))),
    ]
    found = subprocess.run(arguments, capture_output=True, text=True, check=False)
    return found.returncode, found.stdout[-6000:] + found.stderr[-2000:]


def counts_of(url: str) -> dict[str, int]:
    """Requests so far by class of status, from the server's metrics."""
    counts: dict[str, int] = {}
    for line in httpx2.get(f"{url}/metrics").text.splitlines():
        match = re.match(r'streamingllm_requests_total\{.*status="(\d)\d*".*\} (\S+)', line)
        if match:
            name = f"{match[1]}xx"
            counts[name] = counts.get(name, 0) + int(float(match[2]))
    return counts


def measure(command: str, examples: int, seconds: float, requests: int, seed: int) -> Any:
    """Run passes until there were so many requests, or so many seconds have gone."""
    passes: list[dict[str, Any]] = []
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        model = write_tiny_chat(Path(name) / "model")
        with ServerProcess(model, Path(name) / "data", *OPTIONS) as server:
            while time.monotonic() - began < seconds:
                left = seconds - (time.monotonic() - began)
                code, said = fuzz(command, server.url, examples, seed + len(passes), left)
                counts = counts_of(server.url)
                resident = server.process.memory_info().rss
                passes.append({"exit_code": code, "requests": counts, "resident": resident})
                typer.echo(f"{counts} {resident / 1e6:.0f} MB\n{said[-1500:]}", err=True)
                if sum(counts.values()) >= requests:
                    break
            log = server.log.read_text()
    return {
        "options": " ".join(OPTIONS),
        "requests": sum(passes[-1]["requests"].values()),
        "by_status": passes[-1]["requests"],
        "resident_megabytes": [round(p["resident"] / 1e6, 1) for p in passes],
        "exit_codes": [p["exit_code"] for p in passes],
        "tracebacks_in_log": log.count("Traceback"),
        "minutes": round((time.monotonic() - began) / 60, 1),
    }


def main(
    schemathesis: Annotated[str, typer.Option(help="Its command.")] = "schemathesis",
    examples: Annotated[int, typer.Option(help="Of each operation in one pass.")] = 200,
    requests: Annotated[int, typer.Option(help="Stop after so many.")] = 100_000,
    seconds: Annotated[float, typer.Option(help="Stop after so long.")] = 3600.0,
    seed: Annotated[int, typer.Option(help="Seed of the requests.")] = 0,
    json: Annotated[str, typer.Option(help="File of the results, - for standard output.")] = "-",
) -> None:
    """Send requests, and write the results."""
    found = measure(schemathesis, examples, seconds, requests, seed)
    write_json(json, {**found, **run_record(seed)})


if __name__ == "__main__":
    typer.run(main)
