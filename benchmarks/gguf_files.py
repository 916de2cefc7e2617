"""Load, prefill and decode with GGUF files in their own bits, compared with llama.cpp.

Run: `python -m benchmarks.gguf_files FILE.gguf ... --llama-python PYTHON
--json benchmarks/results/gguf-files.json`, where PYTHON has llama-cpp-python.
"""

from __future__ import annotations

import json as json_format
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.gguf_file import measure_file
from benchmarks.progress import shown
from streamingllm.cli.output import write_json
from streamingllm.cli.run_record import run_record

Result = dict[str, Any]
_MEDIANS = (
    "ready_seconds",
    "peak_bytes",
    "prefill_tokens_per_second",
    "decode_seconds",
    "tokens_per_second_of_16_streams",
    "bandwidth_bytes_per_second",
)
_RATIOS = ("decode_seconds", "prefill_tokens_per_second", "tokens_per_second_of_16_streams")


def main(
    files: Annotated[list[Path], typer.Argument(help="GGUF files.")],
    steps: Annotated[int, typer.Option(help="Timed decode steps.")] = 40,
    threads: Annotated[int, typer.Option(help="Worker threads.")] = 2,
    rounds: Annotated[int, typer.Option(help="Turns of each contestant.")] = 3,
    perplexity_tokens: Annotated[int, typer.Option(help="Tokens that are scored.")] = 4096,
    held: Annotated[int, typer.Option(help="Tokens that each of 16 streams holds.")] = 512,
    llama_python: Annotated[
        Path | None, typer.Option(help="Interpreter with llama-cpp-python; without it only ours.")
    ] = None,
    child: Annotated[str, typer.Option(help="Measure here; print JSON.", hidden=True)] = "",
    json: Annotated[str, typer.Option(help="Where results go; `-` prints them.")] = "-",
) -> None:
    """Measure files one after the other, ours and llama.cpp in turns."""
    if child:
        request = json_format.loads(child)
        sys.stdout.write(json_format.dumps(measure_file(files[0], request)))
        return
    results = {}
    request = {"steps": steps, "threads": threads, "held": held}
    for path in shown(files, "files"):
        results[path.name] = measure_rounds(path, request, rounds, perplexity_tokens, llama_python)
        write_json(json, {"files": results, "rounds": rounds, **request, **run_record()})


def measure_rounds(
    path: Path, request: Result, rounds: int, perplexity_tokens: int, llama_python: Path | None
) -> Result:
    """Return medians over rounds, and medians of the ratios of each round.

    Args:
        path: a GGUF file.
        request: steps, threads and tokens held by each of 16 streams.
        rounds: turns of each contestant.
        perplexity_tokens: tokens that are scored in the first round; 0 for none.
        llama_python: an interpreter that has llama-cpp-python; None for ours alone.
    """
    ours: list[Result] = []
    theirs: list[Result] = []
    for number in range(rounds):
        scored = perplexity_tokens if number == 0 else 0
        result = _ours(path, {**request, "perplexity_tokens": scored, "quantize": "auto"})
        ids, chunks = result.pop("ids"), result.pop("chunks")
        ours.append(result)
        if llama_python is not None:
            asked = {"ids": ids, "chunks": chunks, **request}
            theirs.append(_llama(llama_python, path, asked))
    summary: Result = {
        "file_bytes": path.stat().st_size,
        "weights": ours[0]["weights"],
        "perplexity": ours[0].get("perplexity"),
        "ours": _medians(ours),
        "ready_seconds_of_rounds": [run["ready_seconds"] for run in ours],
        "decode_bytes": ours[0]["decode_bytes"],
        "decode_over_bytes_time": statistics.median(
            run["decode_seconds"] * run["bandwidth_bytes_per_second"] / run["decode_bytes"]
            for run in ours
        ),
    }
    if perplexity_tokens:
        exact = {**request, "perplexity_tokens": perplexity_tokens, "quantize": "none"}
        summary["perplexity_dequantised"] = _ours(path, exact)["perplexity"]
    if theirs:
        summary["llama_cpp"] = _medians(theirs)
        summary["llama_cpp_perplexity"] = theirs[0].get("perplexity")
        summary["ours_over_llama_cpp"] = {
            name: statistics.median(a[name] / b[name] for a, b in zip(ours, theirs, strict=True))
            for name in _RATIOS
        }
    return summary


def _medians(runs: Sequence[Result]) -> Result:
    return {
        name: statistics.median(run[name] for run in runs) for name in _MEDIANS if name in runs[0]
    }


def _ours(path: Path, request: Result) -> Result:
    child = json_format.dumps(request)
    return _child([sys.executable, "-m", "benchmarks.gguf_files", str(path), "--child", child])


def _llama(python: Path, path: Path, request: Result) -> Result:
    program = Path(__file__).with_name("llama_cpp_files.py")
    return _child([str(python), str(program), str(path)], json_format.dumps(request))


def _child(command: Sequence[str], given: str | None = None) -> Result:
    done = subprocess.run(command, input=given, stdout=subprocess.PIPE, text=True, check=True)
    result: Result = json_format.loads(done.stdout.splitlines()[-1])
    return result


if __name__ == "__main__":
    typer.run(main)
