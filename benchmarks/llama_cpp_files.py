"""Load, prefill and decode with a GGUF file by llama.cpp.

The interpreter that runs this must have llama-cpp-python.

Run: `python llama_cpp_files.py MODEL.gguf < REQUEST.json`
"""

from __future__ import annotations

import importlib
import json
import resource
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

SINK_TOKENS, WINDOW = 4, 1020
CACHE = SINK_TOKENS + WINDOW
BATCH_TOKENS = 512
SCORED_AT_ONCE = 128
WARM_UP_TOKENS = 64
STREAMS = 16
WARM_UP_STEPS = 4


class LlamaCppFile:
    """Hold a model of llama.cpp.

    Args:
        path: the GGUF file.
        threads: worker threads.
    """

    def __init__(self, path: str, threads: int) -> None:
        self.threads = threads
        self.llama: Any = importlib.import_module("llama_cpp")
        self._log = self.llama.llama_log_callback(lambda *_: None)  # kept alive with the model
        self.llama.llama_log_set(self._log, None)
        self.llama.llama_backend_init()
        self.model = self.llama.llama_model_load_from_file(
            path.encode(), self.llama.llama_model_default_params()
        )
        vocabulary = self.llama.llama_model_get_vocab(self.model)
        self.vocab_size = self.llama.llama_vocab_n_tokens(vocabulary)
        self.context: Any = None

    def open(self, tokens: int, streams: int = 1) -> None:
        """Begin anew with a context for `tokens` of each of some streams."""
        self.close()
        parameters = self.llama.llama_context_default_params()
        parameters.n_ctx, parameters.n_seq_max = tokens * streams, streams
        parameters.n_batch = parameters.n_ubatch = BATCH_TOKENS
        parameters.n_threads = parameters.n_threads_batch = self.threads
        parameters.flash_attn_type = self.llama.LLAMA_FLASH_ATTN_TYPE_ENABLED
        self.context = self.llama.llama_init_from_model(self.model, parameters)
        self.memory = self.llama.llama_get_memory(self.context)

    def close(self) -> None:
        """Give the context back."""
        if self.context is not None:
            self.llama.llama_free(self.context)
            self.context = None

    def decode(self, rows: Sequence[tuple[int, int, int]], *, all_logits: bool = False) -> None:
        """Run one pass over (token, position, stream) rows; logits of the last, or of all."""
        batch = self.llama.llama_batch_init(len(rows), 0, 1)
        batch.n_tokens = len(rows)
        for i, (token, position, stream) in enumerate(rows):
            batch.token[i], batch.pos[i] = token, position
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, stream
            batch.logits[i] = all_logits or i == len(rows) - 1
        status = self.llama.llama_decode(self.context, batch)
        self.llama.llama_batch_free(batch)
        if status != 0:
            raise RuntimeError(f"llama_decode={status}: must be 0")

    def logits(self, row: int = -1) -> Any:
        """Return the logits of a row of the last pass."""
        pointer = self.llama.llama_get_logits_ith(self.context, row)
        return np.ctypeslib.as_array(pointer, shape=(self.vocab_size,))

    def feed(self, ids: Sequence[int], first: int = 0, stream: int = 0) -> None:
        """Prefill ids from a position on, in batches."""
        rows = [(token, first + i, stream) for i, token in enumerate(ids)]
        for start in range(0, len(rows), BATCH_TOKENS):
            self.decode(rows[start : start + BATCH_TOKENS])

    def steps(self, token: int, position: int, count: int) -> tuple[list[float], int]:
        """Return the seconds of greedy steps, and the last token."""
        seconds = []
        for i in range(count):
            start = time.perf_counter()
            self.decode([(token, position + i, 0)])
            token = int(self.logits().argmax())
            seconds.append(time.perf_counter() - start)
        return seconds, token


def prefill_rate(model: LlamaCppFile, ids: Sequence[int]) -> float:
    """Return tokens per second of a prompt, once the model has seen another one."""
    model.open(CACHE)
    model.feed(ids[:WARM_UP_TOKENS])
    model.llama.llama_memory_clear(model.memory, True)
    start = time.perf_counter()
    model.feed(ids[:CACHE])
    model.logits()
    return CACHE / (time.perf_counter() - start)


def half_window_seconds(model: LlamaCppFile, ids: Sequence[int], count: int) -> list[float]:
    """Return seconds per step when half the window is discarded each time the cache is full.

    The cost grows evenly over a cycle: steps at its two ends, in pairs, stand for the whole.
    """
    half, total = WINDOW // 2, WARM_UP_STEPS + count
    model.open(CACHE)
    model.feed(ids[: CACHE - total])
    token = int(model.logits().argmax())
    end, token = model.steps(token, CACHE - total, total)
    model.llama.llama_memory_seq_rm(model.memory, 0, SINK_TOKENS, SINK_TOKENS + half)
    model.llama.llama_memory_seq_add(model.memory, 0, SINK_TOKENS + half, -1, -half)
    stall, token = model.steps(token, CACHE - half, 1)
    begin, _ = model.steps(token, CACHE - half + 1, total)
    share = (stall[0] - statistics.median(begin[WARM_UP_STEPS:])) / half
    pairs = zip(begin[WARM_UP_STEPS:], end[WARM_UP_STEPS:], strict=True)
    return [(a + b) / 2 + share for a, b in pairs]


def rate_of_streams(model: LlamaCppFile, ids: Sequence[int], held: int, count: int) -> float:
    """Return tokens per second of streams that hold `held` tokens each and decode together."""
    model.open(held + count + WARM_UP_STEPS + 8, STREAMS)
    for stream in range(STREAMS):
        model.feed(ids[stream * held : (stream + 1) * held], stream=stream)
    tokens, seconds = [ids[0]] * STREAMS, []
    for step in range(count + WARM_UP_STEPS):
        start = time.perf_counter()
        model.decode([(t, held + step, i) for i, t in enumerate(tokens)], all_logits=True)
        tokens = [int(model.logits(i).argmax()) for i in range(STREAMS)]
        seconds.append(time.perf_counter() - start)
    return STREAMS / statistics.median(seconds[WARM_UP_STEPS:])


def perplexity(model: LlamaCppFile, chunks: Sequence[Sequence[int]]) -> float:
    """Return the perplexity of chunks, each of which begins anew."""
    nll: list[float] = []
    for chunk in chunks:
        model.open(len(chunk))
        for start in range(0, len(chunk), SCORED_AT_ONCE):
            part = chunk[start : start + SCORED_AT_ONCE]
            model.decode([(t, start + i, 0) for i, t in enumerate(part)], all_logits=True)
            for i in range(min(len(part), len(chunk) - 1 - start)):
                logits = model.logits(i).astype(np.float64)
                top = logits.max()
                total = np.log(np.exp(logits - top).sum()) + top
                nll.append(float(total - logits[chunk[start + i + 1]]))
    return float(np.exp(np.mean(nll)))


def main(path: str) -> None:
    """Measure a file as a request on standard input says; print JSON."""
    request = json.load(sys.stdin)
    ids, steps = request["ids"], request["steps"]
    importlib.import_module("llama_cpp")
    before = _peak_bytes()
    start = time.perf_counter()
    model = LlamaCppFile(path, request["threads"])
    model.open(CACHE)
    ready = time.perf_counter() - start
    model.feed(ids[:1])  # touches all weights, which are mapped
    result: dict[str, Any] = {"ready_seconds": ready, "peak_bytes": _peak_bytes() - before}
    result["prefill_tokens_per_second"] = prefill_rate(model, ids)
    result["decode_seconds"] = statistics.median(half_window_seconds(model, ids, steps))
    held = request["held"]
    result["tokens_per_second_of_16_streams"] = rate_of_streams(model, ids, held, steps // 2)
    if request["chunks"]:
        result["perplexity"] = perplexity(model, request["chunks"])
    print(json.dumps(result))


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main(sys.argv[1])
