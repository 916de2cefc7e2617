"""Time our products with packed weights beside torch's kernels, in turns.

All linear layers of SmolLM2-135M's shape, so that no cache holds them; random weights.
Run: `python -m benchmarks.linears --json benchmarks/results/linears.json`
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Annotated

import torch
import torch.nn.functional as F
import typer
from torch import Tensor

from benchmarks.progress import shown
from streamingllm.cli.output import write_json
from streamingllm.cli.run_record import run_record
from streamingllm.evaluation.speed import BandwidthMeter, seconds_of
from streamingllm.kernels import native
from streamingllm.kernels.operators import linear, quantized_linear
from streamingllm.models.quantize import quantize_weight

LAYERS, HEAD = 30, (49_152, 576)
SHAPES = [*[(960, 576), (576, 576), (3_072, 576), (576, 1_536)] * LAYERS, HEAD]
SEED = 0
_ASLEEP_SECONDS = 0.05  # in which the threads of the one before go to sleep

Product = Callable[[Tensor], Tensor]


def ours(weight: Tensor, num_bits: int) -> tuple[Product, int]:
    """Our packed product, and the bytes it reads."""
    packed, _ = quantize_weight(weight, num_bits)
    size = sum(t.nbytes for t in packed.tensors if t is not None)
    return lambda x: quantized_linear(x, *packed.tensors), size


def torch_int4(weight: Tensor) -> tuple[Product, int]:
    """Torch's int4 kernel in groups of 32."""
    codes = torch.randint(0, 16, weight.shape, dtype=torch.int32)
    packed = torch._convert_weight_to_int4pack_for_cpu(codes, 1)
    scales = torch.ones(weight.shape[1] // 32, weight.shape[0], 2, dtype=torch.bfloat16)
    product = partial(torch._weight_int4pack_mm_for_cpu, mat2=packed, qGroupSize=32)
    return lambda x: product(x, qScaleAndZeros=scales), packed.nbytes + scales.nbytes


def torch_int8(weight: Tensor) -> tuple[Product, int]:
    """Torch's int8 kernel, a scale per row."""
    codes = torch.randint(-127, 128, weight.shape, dtype=torch.int8)
    scales = torch.ones(weight.shape[0], dtype=torch.bfloat16)
    return lambda x: torch._weight_int8pack_mm(x, codes, scales), codes.nbytes + scales.nbytes


def dense(product: Callable[[Tensor, Tensor], Tensor], weight: Tensor) -> tuple[Product, int]:
    """A product with bfloat16 weights."""
    half = weight.bfloat16()
    return lambda x: product(x, half), half.nbytes


CONTESTANTS: dict[str, Callable[[Tensor], tuple[Product, int]]] = {
    "ours int4": partial(ours, num_bits=4),
    "torch int4": torch_int4,
    "ours int8": partial(ours, num_bits=8),
    "torch int8": torch_int8,
    "ours bfloat16": partial(dense, linear),
    "torch bfloat16": partial(dense, F.linear),
}


def main(
    rows: Annotated[int, typer.Option(help="Tokens that are multiplied at once.")] = 1,
    rounds: Annotated[int, typer.Option(help="Times that each takes its turn.")] = 15,
    threads: Annotated[int, typer.Option(help="Processor threads.")] = 2,
    json: Annotated[str, typer.Option(help="Where results go; `-` prints them.")] = "-",
) -> None:
    """Time tokens through every linear layer, each kernel in turn."""
    torch.manual_seed(SEED)
    torch.set_num_threads(threads)
    native.load()
    inputs = {size: torch.randn(rows, size).bfloat16() for _, size in SHAPES}
    layers = {
        name: [make(torch.randn(shape)) for shape in SHAPES]
        for name, make in shown(CONTESTANTS.items(), "weights", len(CONTESTANTS))
    }
    seconds: dict[str, list[float]] = {name: [] for name in layers}
    meter = BandwidthMeter()

    def run(name: str) -> None:
        for (product, _), (_, size) in zip(layers[name], SHAPES, strict=True):
            product(inputs[size])

    for _ in shown(range(rounds), "rounds"):
        for name in layers:
            time.sleep(_ASLEEP_SECONDS)
            run(name)  # finds its own code and buffers warm
            seconds[name].append(seconds_of(partial(run, name)))
        meter.sample()
    results = {
        name: {
            "milliseconds": statistics.median(times) * 1e3,
            "bytes": sum(size for _, size in layers[name]),
            "bytes_per_second": sum(size for _, size in layers[name]) / statistics.median(times),
        }
        for name, times in seconds.items()
    }
    bandwidth = {"bandwidth_bytes_per_second": meter.bytes_per_second}
    write_json(
        json, {"products": results, "rows": rows, "rounds": rounds, **bandwidth, **run_record(SEED)}
    )


if __name__ == "__main__":
    typer.run(main)
