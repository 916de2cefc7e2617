"""Load, read and write with GGUF files in their own bits; each file in processes of its own.

Run: `python -m benchmarks.gguf_files FILE.gguf ... --json benchmarks/results/gguf-files.json`
"""

from __future__ import annotations

import json as json_format
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from benchmarks.progress import shown
from streamingllm import Stream, StreamConfig, load_model
from streamingllm.cli.output import write_json
from streamingllm.cli.run_record import run_record
from streamingllm.evaluation.speed import measure_decode
from streamingllm.evaluation.texts import open_documents, read_tokens
from streamingllm.models import LanguageModel

CONFIG = StreamConfig(num_sink_tokens=4, window_size=1020)
PROMPT_TOKENS = 1024
STREAMS = 16


def main(
    files: Annotated[list[Path], typer.Argument(help="GGUF files.")],
    steps: Annotated[int, typer.Option(help="Timed decode steps.")] = 60,
    threads: Annotated[int, typer.Option(help="Worker threads.")] = 2,
    child: Annotated[bool, typer.Option(help="Measure here; print JSON.", hidden=True)] = False,
    json: Annotated[str, typer.Option(help="Where results go; `-` prints them.")] = "-",
) -> None:
    """Measure files one after the other: ready, peak memory, prefill, decode, 16 streams."""
    if child:
        sys.stdout.write(json_format.dumps(_measure(files[0], steps, threads)))
        return
    results = {}
    for path in shown(files, "files"):
        runs = [_in_child(path, steps, threads) for _ in range(2)]
        results[path.name] = runs[1] | {"ready_seconds": [run["ready_seconds"] for run in runs]}
    write_json(json, {"files": results, "steps": steps, "threads": threads, **run_record()})


def _in_child(path: Path, steps: int, threads: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.gguf_files", str(path), "--child"]
    command += ["--steps", str(steps), "--threads", str(threads)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json_format.loads(done.stdout)
    return result


def _measure(path: Path, steps: int, threads: int) -> dict[str, Any]:
    torch.set_num_threads(threads)
    _load_libraries()
    before = _resident_bytes("VmRSS")
    start = time.perf_counter()
    lm = load_model(path)
    ready = time.perf_counter() - start
    peak = _resident_bytes("VmHWM") - before
    return {
        "file_bytes": path.stat().st_size,
        "weights": lm.weights,
        "ready_seconds": ready,
        "peak_bytes_over_libraries": peak,
        "resident_bytes_over_libraries": _resident_bytes("VmRSS") - before,
        **_speeds(lm, steps),
    }


def _load_libraries() -> None:
    """Import what every model needs, so that the file alone is measured."""
    import transformers.models.auto.modeling_auto  # noqa: F401

    from streamingllm.kernels import native

    native.load()


def _speeds(lm: LanguageModel, steps: int) -> dict[str, Any]:
    ids = read_tokens(lm, open_documents("pydoc"), STREAMS * 64 + PROMPT_TOKENS + 8)
    stream = Stream(lm.model, CONFIG)
    stream.feed(ids[:PROMPT_TOKENS], logits="none")
    start = time.perf_counter()
    stream.feed(ids[:PROMPT_TOKENS], logits="last")
    prefill = PROMPT_TOKENS / (time.perf_counter() - start)
    stream.compile(wait=True)
    one = measure_decode(stream, steps)
    many = Stream(lm.model, CONFIG)
    many.feed(ids[: STREAMS * 64].view(STREAMS, 64), logits="last")
    many.compile(wait=True)
    sixteen = measure_decode(many, max(8, steps // 4))
    return {
        "prefill_tokens_per_second": prefill,
        "decode_milliseconds": one.steps.in_milliseconds(),
        "decode_bandwidth_share": one.bandwidth_share,
        "bandwidth_bytes_per_second": statistics.fmean([one.bandwidth, sixteen.bandwidth]),
        "tokens_per_second_of_16_streams": sixteen.tokens_per_second,
    }


def _resident_bytes(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}; run this on Linux")


if __name__ == "__main__":
    typer.run(main)
