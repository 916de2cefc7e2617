"""Measure the speed of prefill and decode, next to what the memory allows."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from streamingllm.models.packed_linear import PackedLinear
from streamingllm.stream import Stream

_READ_BYTES = 1 << 28  # well past any cache
_WARM_UP = 10
_BANDWIDTH_SAMPLES = 12


@dataclass(frozen=True)
class Timings:
    """Seconds of repeated work.

    Args:
        seconds: one number per repetition.
    """

    seconds: Sequence[float]

    @property
    def median(self) -> float:
        """Median of the seconds."""
        return statistics.median(self.seconds)

    @property
    def p95(self) -> float:
        """95th percentile of the seconds."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]

    def in_milliseconds(self) -> dict[str, float]:
        """Return median, p95 and least in milliseconds."""
        named = {"median": self.median, "p95": self.p95, "min": min(self.seconds)}
        return {name: value * 1e3 for name, value in named.items()}


def seconds_of(work: Callable[[], object]) -> float:
    """Return how long `work` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


class BandwidthMeter:
    """Measure how fast a device's memory can be read, on a CPU with all threads of torch."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self._bytes = torch.ones(_READ_BYTES // 4, device=device)
        self._rates: list[float] = []

    def sample(self) -> None:
        """Read the memory once."""
        # The sum is a number on the host, which waits for a GPU.
        self._rates.append(_READ_BYTES / seconds_of(lambda: float(self._bytes.sum())))

    @property
    def bytes_per_second(self) -> float:
        """Return the best of the samples: the bandwidth without neighbours."""
        return max(self._rates)


def weight_bytes(model: PreTrainedModel) -> int:
    """Return the bytes of weights that a decode step reads: an embedding table is left out."""
    embedding = model.get_input_embeddings()
    read: dict[int, int] = {}
    for module in model.modules():
        if module is embedding:  # a head that shares the table counts it
            continue
        parts = module.parts().values() if isinstance(module, PackedLinear) else ()
        for tensor in (*parts, *module.parameters(recurse=False)):
            read[tensor.data_ptr()] = tensor.nbytes
    return sum(read.values())


@dataclass(frozen=True)
class DecodeSpeed:
    """Hold the figures of a run of decode steps.

    Args:
        steps: seconds per step.
        bytes_per_step: weights and cache that a step reads.
        bandwidth: bytes per second that the memory gave in the same run.
        batch_size: streams per step.
    """

    steps: Timings
    bytes_per_step: int
    bandwidth: float
    batch_size: int

    @property
    def bandwidth_share(self) -> float:
        """The part of the memory's bandwidth that the median step used."""
        return self.bytes_per_step / self.steps.median / self.bandwidth

    @property
    def tokens_per_second(self) -> float:
        """Tokens of all streams together."""
        return self.batch_size / self.steps.median


def measure_decode(
    stream: Stream, num_steps: int, *, on_step: Callable[[], object] = lambda: None
) -> DecodeSpeed:
    """Time greedy steps of a stream whose cache is full, so that each one evicts.

    The memory's bandwidth is sampled between steps, so that both meet the same neighbours.

    Args:
        stream: has been fed.
        num_steps: timed steps; a few more come before, untimed.
        on_step: called after each.
    """
    meter = BandwidthMeter(stream.model.device)
    seconds = []
    tokens = stream.generate_batch(num_steps + _WARM_UP)
    for number in range(num_steps + _WARM_UP):
        start = time.perf_counter()
        last = next(tokens)
        seconds.append(time.perf_counter() - start)
        on_step()
        if number % max(1, num_steps // _BANDWIDTH_SAMPLES) == 0:
            meter.sample()
    return DecodeSpeed(
        Timings(seconds[_WARM_UP:]),
        weight_bytes(stream.model) + stream.nbytes,
        meter.bytes_per_second,
        len(last),
    )
