"""Decode, prefill and serve a small model on a GPU, where the host's share of a step shows.

Run: `python -m benchmarks.gpu_engine --json benchmarks/results/gpu-engine.json`
"""

from __future__ import annotations

import time
from typing import Annotated, Any

import torch
import typer

from benchmarks.progress import shown
from streamingllm import Engine, LanguageModel, SamplingParams, Stream, StreamConfig
from streamingllm.cli.output import write_json
from streamingllm.cli.run_record import run_record
from streamingllm.evaluation.perplexity import measure_perplexity
from streamingllm.evaluation.speed import measure_decode
from streamingllm.evaluation.texts import open_documents, read_tokens
from streamingllm.models import DEFAULT_MODEL, load_model

CONFIG = StreamConfig(4, 1020, chunk_size=2048)
PROMPT_TOKENS, NEW_TOKENS = 64, 200
SEED = 0


def perplexity(lm: LanguageModel, ids: torch.Tensor) -> float:
    """Return the perplexity of the text's first 3,000 tokens with a window of 508."""
    return measure_perplexity(lm.model, ids[:3000], StreamConfig(4, 508)).perplexity


def prefill(lm: LanguageModel, ids: torch.Tensor) -> float:
    """Return the tokens per second of reading `ids`, the second time."""
    seconds = 0.0
    for _ in range(2):
        stream, started = Stream(lm.model, CONFIG), time.perf_counter()
        int(stream.feed(ids, logits="last").argmax())  # waits for the GPU
        seconds = time.perf_counter() - started
    return len(ids) / seconds


def decode(lm: LanguageModel, ids: torch.Tensor, batch_size: int) -> dict[str, Any]:
    """Return the speed of greedy steps of full caches."""
    stream = Stream(lm.model, CONFIG)
    stream.feed(ids[: CONFIG.cache_size + 1].repeat(batch_size, 1), logits="none")
    speed = measure_decode(stream, 100)
    return {"tokens_per_second": speed.tokens_per_second, "captured": stream.is_captured}


def serve(lm: LanguageModel, ids: torch.Tensor, num_streams: int) -> dict[str, Any]:
    """Return the speed of an engine that as many prompts reach at once, the second time."""
    figures: dict[str, Any] = {}
    with Engine(lm, CONFIG, max_streams=num_streams) as engine:
        for _ in range(2):
            figures = _serve_once(engine, ids, num_streams)
    return figures


def _serve_once(engine: Engine, ids: torch.Tensor, num_streams: int) -> dict[str, Any]:
    params = SamplingParams(max_new_tokens=NEW_TOKENS, ignore_eos=True)
    started, first, steps = time.perf_counter(), dict[str, float](), 0
    streams = [engine.open_stream() for _ in range(num_streams)]
    for number, stream_id in enumerate(streams):
        begin = 50 * number
        engine.submit(stream_id, ids[begin : begin + PROMPT_TOKENS].tolist(), params)
    while engine.has_work:
        for output in engine.step():
            first.setdefault(output.stream_id, time.perf_counter() - started)
        steps += 1
    seconds = time.perf_counter() - started
    for stream_id in streams:
        engine.close_stream(stream_id)
    return {
        "tokens_per_second": num_streams * NEW_TOKENS / seconds,
        "steps": steps,
        "seconds_to_first_token": {"first": min(first.values()), "last": max(first.values())},
    }


def measure(lm: LanguageModel, ids: torch.Tensor, sizes: list[int]) -> dict[str, Any]:
    """Return all figures of one model."""
    results: dict[str, Any] = {"perplexity": perplexity(lm, ids)}
    results["prefill_tokens_per_second"] = {n: prefill(lm, ids[:n]) for n in (1024, 65_536)}
    results["decode"] = {size: decode(lm, ids, size) for size in shown(sizes, "batches")}
    results["engine"] = {size: serve(lm, ids, size) for size in shown(sizes, "engines")}
    return results


def main(
    model: Annotated[str, typer.Option(help="A catalog name, a folder or a .gguf file.")] = (
        DEFAULT_MODEL
    ),
    text: Annotated[str, typer.Option(help="A UTF-8 file, or pydoc.")] = "pydoc",
    device: Annotated[str, typer.Option(help="Where the model runs.")] = "cuda",
    dtype: Annotated[str, typer.Option(help="Of weights and activations.")] = "bfloat16",
    streams: Annotated[
        list[int] | None, typer.Option(help="Streams, by default 1, 16 and 64; repeatable.")
    ] = None,
    json: Annotated[str, typer.Option(help="Where results go; `-` prints them.")] = "-",
) -> None:
    """Measure and write the results."""
    lm = load_model(model, device=device, dtype=dtype, quantize="none")
    ids = read_tokens(lm, open_documents(text), 70_000)
    results = measure(lm, ids, streams or [1, 16, 64])
    settings = {"model": model, "text": text, "dtype": dtype}
    write_json(json, {**settings, **results, **run_record(SEED)})


if __name__ == "__main__":
    typer.run(main)
