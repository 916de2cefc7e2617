"""Measure one GGUF file in this process: ready, memory, prefill, decode, 16 streams, perplexity."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from streamingllm import Stream, StreamConfig, load_model
from streamingllm.evaluation.speed import measure_decode
from streamingllm.evaluation.texts import open_documents, read_tokens
from streamingllm.models import LanguageModel

CONFIG = StreamConfig(num_sink_tokens=4, window_size=1020)
PROMPT_TOKENS = 1024
WARM_UP_TOKENS = 64
STREAMS = 16
ROOM_TOKENS = 64  # for what each of them writes
CHUNK_TOKENS = 1024  # of perplexity: nothing is evicted, each chunk begins anew
_SCORED_AT_ONCE = 128


def measure_file(path: Path, request: dict[str, Any]) -> dict[str, Any]:
    """Load a file and measure what a request names.

    Args:
        path: of the file.
        request: `quantize`, `threads`, `steps`, `held` tokens of each of 16 streams, and
            `perplexity_tokens`; weights other than those of the file are only scored.
    """
    torch.set_num_threads(request["threads"])
    _load_libraries()
    before = _memory("VmRSS")
    start = time.perf_counter()
    lm = load_model(path, quantize=request["quantize"])
    ready = time.perf_counter() - start
    result: dict[str, Any] = {
        "ready_seconds": ready,
        "peak_bytes": _memory("VmHWM") - before,
        "resident_bytes": _memory("VmRSS") - before,
        "weights": lm.weights,
    }
    beginning = lm.encode("")
    count = max(STREAMS * request["held"] + PROMPT_TOKENS, request["perplexity_tokens"])
    ids = read_tokens(lm, open_documents("pydoc"), count)
    text = ids[len(beginning) :]
    step = CHUNK_TOKENS - len(beginning)
    starts = range(0, request["perplexity_tokens"], CHUNK_TOKENS)
    chunks = [torch.cat([beginning, text[i : i + step]]) for i in starts]
    result |= {"ids": ids.tolist(), "chunks": [chunk.tolist() for chunk in chunks]}
    if chunks:
        result["perplexity"] = _perplexity(lm, chunks)
    if request["quantize"] == "auto":
        result |= _speeds(lm, ids, request["held"], request["steps"])
    return result


def _load_libraries() -> None:
    """Import what every model needs, so that the file alone is measured."""
    import transformers.models.auto.modeling_auto  # noqa: F401

    from streamingllm.kernels import native

    native.load()


def _perplexity(lm: LanguageModel, chunks: list[Tensor]) -> float:
    nll = []
    for chunk in chunks:
        stream = Stream(lm.model, CONFIG)
        targets = torch.cat([chunk[1:], chunk[:1]])
        parts = zip(chunk.split(_SCORED_AT_ONCE), targets.split(_SCORED_AT_ONCE), strict=True)
        scores = [
            torch.nn.functional.cross_entropy(stream.feed(ids).double(), wanted, reduction="none")
            for ids, wanted in parts
        ]
        nll.append(torch.cat(scores)[:-1])
    return float(torch.cat(nll).mean().exp())


def _speeds(lm: LanguageModel, ids: Tensor, held: int, steps: int) -> dict[str, Any]:
    stream = Stream(lm.model, CONFIG)
    stream.feed(ids[:WARM_UP_TOKENS], logits="none")
    start = time.perf_counter()
    stream.feed(ids[:PROMPT_TOKENS], logits="last")
    prefill = PROMPT_TOKENS / (time.perf_counter() - start)
    stream.compile(wait=True)
    one, is_compiled = measure_decode(stream, steps), stream.is_compiled
    del stream
    # A cache for what they hold only: with a model of 7B, sixteen full windows take 17 GB.
    many = Stream(lm.model, StreamConfig.with_cache_size(min(1024, held + ROOM_TOKENS), 4))
    many.feed(ids[: STREAMS * held].view(STREAMS, held), logits="last")
    many.compile(wait=True)
    sixteen = measure_decode(many, max(8, steps // 2))
    return {
        "prefill_tokens_per_second": prefill,
        "decode_seconds": one.steps.median,
        "decode_bytes": one.bytes_per_step,
        "is_compiled": is_compiled,
        "bandwidth_bytes_per_second": max(one.bandwidth, sixteen.bandwidth),
        "tokens_per_second_of_16_streams": sixteen.tokens_per_second,
    }


def _memory(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}; run this on Linux")
