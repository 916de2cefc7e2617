"""Write on a GPU with a model of Llama-2-7B's shape: ours, recomputation, transformers' own cache.

Run: `python -m benchmarks.gpu --json benchmarks/results/gpu.json`

Weights are random, for speed does not depend on them. Every cache is full before the first timed
step, so with sinks each step evicts; the dense cache starts at the same length and grows.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from benchmarks.progress import shown
from streamingllm import Stream, StreamConfig
from streamingllm.cli.output import write_json
from streamingllm.cli.run_record import run_record
from streamingllm.evaluation.speed import weight_bytes
from streamingllm.kernels import gpu, operators

LLAMA_2_7B = LlamaConfig(
    vocab_size=32_000,
    hidden_size=4096,
    intermediate_size=11_008,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=32,
    max_position_embeddings=4096,
)
DTYPE = torch.bfloat16
CONTESTANTS = ("sinks", "dense", "recompute")
SEED = 0
_WARM_STEPS = 3  # a step runs, is captured, and is replayed
_MOST_SECONDS = 10.0  # recomputation for many streams takes seconds per token
_PROMPT_TOKENS_PER_PASS = 4096


@dataclass(frozen=True)
class Shape:
    """What all contestants keep: `cache_size` tokens of each of `batch_size` streams."""

    num_sink_tokens: int
    window_size: int
    batch_size: int

    @property
    def cache_size(self) -> int:
        """Tokens held, n + m."""
        return self.num_sink_tokens + self.window_size

    def stream(self, model: PreTrainedModel, strategy: str) -> Stream:
        """Return empty streams; to recompute, the window takes the sinks' place too."""
        recomputes = strategy == "recompute"
        chunk = self.cache_size if recomputes else _PROMPT_TOKENS_PER_PASS // self.batch_size
        config = StreamConfig(
            num_sink_tokens=self.num_sink_tokens,
            window_size=self.cache_size if recomputes else self.window_size,
            max_rewind_tokens=0,
            chunk_size=max(1, chunk),
            strategy=strategy,
        )
        return Stream(model, config)


def measure(
    model: PreTrainedModel, strategy: str, shape: Shape, steps: int, bandwidth: float
) -> dict[str, Any]:
    """Return the figures of one contestant at one number of streams.

    Args:
        model: on any device.
        strategy: one of `CONTESTANTS`.
        shape: what is kept.
        steps: timed steps, at most.
        bandwidth: bytes per second that this device reads.
    """
    stream = shape.stream(model, strategy)
    generator = torch.Generator().manual_seed(SEED)
    size = (shape.batch_size, shape.cache_size + 1)
    prompt = torch.randint(0, model.config.vocab_size, size, generator=generator)
    stream.feed(prompt.to(model.device), logits="none")
    stream.compile(wait=True)  # nothing happens but with sinks
    seconds = list(_timed_steps(stream, model.device, steps))
    median = statistics.median(seconds)
    # Recomputation reads activations more than weights: its bytes say nothing.
    step_bytes = None if strategy == "recompute" else weight_bytes(model) + stream.nbytes
    return {
        "milliseconds_per_token": {
            "median": median * 1e3,
            "p95": float(np.percentile(seconds, 95)) * 1e3,
        },
        "tokens_per_second": shape.batch_size / median,
        "steps": len(seconds),
        "compiled": stream.is_compiled,
        "captured": stream.is_captured,
        "cache_bytes": stream.nbytes,
        "bytes_per_step": step_bytes,
        "bandwidth_share": None if step_bytes is None else step_bytes / median / bandwidth,
    }


def _timed_steps(stream: Stream, device: torch.device, steps: int) -> Iterator[float]:
    """Yield the seconds of greedy steps, until there are `steps` or time is up."""
    end = time.perf_counter() + _MOST_SECONDS
    for step in range(_WARM_STEPS + steps):
        start = time.perf_counter()
        token = stream.next_logits.argmax(dim=-1)
        stream.feed(token.view(-1, 1), logits="none")
        _wait(device)
        now = time.perf_counter()
        if step >= _WARM_STEPS:
            yield now - start
            if now > end:
                return


def attention_alone(
    config: LlamaConfig, shape: Shape, device: torch.device, bandwidth: float
) -> dict[str, Any]:
    """Return the figures of `decode_attention` over the full caches of all layers."""
    batch, heads = shape.batch_size, config.num_attention_heads
    kv_heads, dim = config.num_key_value_heads or heads, config.hidden_size // heads

    def numbers(*size: int) -> Tensor:
        return torch.randn(size, device=device, dtype=DTYPE)

    layers = [
        tuple(numbers(batch, kv_heads, shape.cache_size, dim) for _ in range(2))
        for _ in range(config.num_hidden_layers)
    ]
    q, new = numbers(batch, heads, dim), numbers(batch, kv_heads, dim)
    slots = torch.arange(batch, device=device)
    positions = torch.full_like(slots, 10 * shape.cache_size)
    n, m = shape.num_sink_tokens, shape.cache_size - shape.num_sink_tokens
    layout = torch.tensor([n, m, n, m], device=device)[:, None].repeat(1, batch)

    def attend() -> None:
        for k_cache, v_cache in layers:
            operators.decode_attention(
                q, q, new, new, k_cache, v_cache, None, None, None, None, slots, positions, layout,
                dim**-0.5, 0.0, None,
            )  # fmt: skip

    seconds = _seconds_per_call(_captured(attend, device), device)
    num_bytes = sum(x.nbytes for layer in layers for x in layer)
    return {
        "milliseconds": seconds * 1e3,
        "bytes": num_bytes,
        "bandwidth_share": num_bytes / seconds / bandwidth,
    }


def read_bandwidth(device: torch.device, num_bytes: int = 1 << 31) -> float:
    """Return the bytes per second of the faster of summing and copying a large tensor."""
    source = torch.zeros(num_bytes // 4, device=device)
    target = torch.empty_like(source)
    reading = num_bytes / _seconds_per_call(lambda: source.sum(), device)
    copying = 2 * num_bytes / _seconds_per_call(lambda: target.copy_(source), device)
    return max(reading, copying)


def _captured(call: Callable[[], object], device: torch.device) -> Callable[[], object]:
    """Return a CUDA graph of a call; on other devices the call."""
    call()
    if device.type != "cuda":
        return call
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def _seconds_per_call(call: Callable[[], object], device: torch.device, calls: int = 20) -> float:
    seconds = []
    for _ in range(calls):
        _wait(device)
        start = time.perf_counter()
        call()
        _wait(device)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _or_reason(call: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what a call returns, or that the memory was too small for it."""
    try:
        return call()
    except torch.OutOfMemoryError as error:
        return {"skipped": str(error).splitlines()[0]}
    finally:
        gc.collect()
        torch.cuda.empty_cache()


def compare(
    model: PreTrainedModel, shapes: list[Shape], steps: int, bandwidth: float
) -> dict[str, Any]:
    """Return the figures of all contestants, and ours over each by tokens per second."""
    results: dict[str, Any] = {}
    runs = [(shape, strategy) for shape in shapes for strategy in CONTESTANTS]
    for shape, strategy in shown(runs, "contestants"):
        at = results.setdefault(f"batch_{shape.batch_size}", {})
        at[strategy] = _or_reason(
            lambda strategy=strategy, shape=shape: measure(  # type: ignore[misc]
                model, strategy, shape, steps, bandwidth
            )
        )
    for at in results.values():
        ours = at["sinks"].get("tokens_per_second")
        for figures in at.values():
            if ours is not None and "tokens_per_second" in figures:
                figures["sinks_over_it"] = ours / figures["tokens_per_second"]
    return results


def random_model(config: LlamaConfig, device: torch.device) -> PreTrainedModel:
    """Return a model whose weights are random."""
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=DTYPE)
    return model.eval().requires_grad_(False)  # type: ignore[no-any-return]


def main(
    num_sink_tokens: Annotated[int, typer.Option(help="First tokens kept.")] = 4,
    window_size: Annotated[int, typer.Option(help="Recent tokens kept.")] = 2044,
    batch_size: Annotated[
        list[int] | None, typer.Option(help="Streams at once, by default 1 and 64; repeatable.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Timed steps of each contestant.")] = 200,
    json: Annotated[str, typer.Option(help="Where results go; `-` prints them.")] = "-",
) -> None:
    """Time a model of Llama-2-7B's shape with random bfloat16 weights on a GPU."""
    if not torch.cuda.is_available():
        raise SystemExit("benchmarks.gpu needs a CUDA GPU, and torch finds none here")
    device = torch.device("cuda", torch.cuda.current_device())
    uses_triton = gpu.load()
    bandwidth = read_bandwidth(device)
    shapes = [Shape(num_sink_tokens, window_size, size) for size in batch_size or [1, 64]]
    attention = {
        f"batch_{shape.batch_size}": _or_reason(
            lambda shape=shape: attention_alone(LLAMA_2_7B, shape, device, bandwidth)  # type: ignore[misc]
        )
        for shape in shapes
    }
    torch.manual_seed(SEED)
    model = random_model(LLAMA_2_7B, device)
    results = {
        "num_sink_tokens": num_sink_tokens,
        "window_size": window_size,
        "dtype": "bfloat16",
        "uses_triton": uses_triton,
        "bandwidth_bytes_per_second": bandwidth,
        "weight_bytes": weight_bytes(model),
        "attention_alone": attention,
        "decode": compare(model, shapes, steps, bandwidth),
    }
    write_json(json, {**results, **run_record(SEED)})


if __name__ == "__main__":
    typer.run(main)
