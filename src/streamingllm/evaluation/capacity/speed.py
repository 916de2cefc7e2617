"""Seconds of a decode step and of a prompt: from a data sheet, or measured."""

from __future__ import annotations

from dataclasses import dataclass

from streamingllm.evaluation.capacity.model_costs import ModelCosts


@dataclass(frozen=True)
class Hardware:
    """Describe a machine.

    Args:
        name: of the machine.
        memory_bytes: of the device that holds weights and caches.
        bytes_per_second: that its memory gives a decode step.
        operations_per_second: that it gives a prompt.
        overhead_seconds: of a pass, whatever it computes.
        copy_bytes_per_second: between device and host.
        source: of these figures.
    """

    name: str
    memory_bytes: float
    bytes_per_second: float
    operations_per_second: float
    overhead_seconds: float
    copy_bytes_per_second: float
    source: str


_SHEET = "data sheet: 0.7 of the bandwidth, 0.4 of the operations, 2 ms a pass; not measured"


def _of_sheet(name: str, gigabytes: float, bandwidth: float, operations: float) -> Hardware:
    return Hardware(name, gigabytes * 1e9, 0.7 * bandwidth, 0.4 * operations, 2e-3, 20e9, _SHEET)


HARDWARE = {
    machine.name: machine
    for machine in (
        Hardware(
            "epyc-2",
            8e9,
            46e9,
            540e9,
            5e-4,
            5e9,
            "two cores of an AMD EPYC: benchmarks/results/batch-int4.json, prefill-int4.json",
        ),
        _of_sheet("l4", 24, 0.3e12, 121e12),
        _of_sheet("a6000", 48, 0.768e12, 155e12),
        _of_sheet("a100", 80, 2.04e12, 312e12),
        _of_sheet("h100", 80, 3.35e12, 989e12),
        Hardware(
            "h200",
            141e9,
            4.37e12,
            470e12,
            1.85e-3,
            20e9,
            "one H200, a model of Llama-2-7B's shape in bfloat16: benchmarks/results/gpu.json; "
            "20 GB/s between device and host are not measured",
        ),
    )
}


@dataclass(frozen=True)
class Speed:
    """Hold the seconds of the parts of a pass, which add up.

    Args:
        step_seconds: of a decode step, whatever the number of streams.
        token_seconds: of each token of a step.
        entry_seconds: of each cached entry that a token of a step reads.
        pass_seconds: of a pass over a prompt, whatever its length.
        prefill_seconds: of each token of a prompt.
        prefill_entry_seconds: of each pair of a token of a prompt and an entry that it reads.
        copy_bytes_per_second: of states between device and host.
    """

    step_seconds: float
    token_seconds: float
    entry_seconds: float
    pass_seconds: float
    prefill_seconds: float
    prefill_entry_seconds: float
    copy_bytes_per_second: float

    def decode(self, streams: float, entries: float) -> float:
        """Return the seconds of a step of streams with this number of entries each."""
        return self.step_seconds + streams * (self.token_seconds + entries * self.entry_seconds)

    def prefill(self, tokens: float, entries: float, window: float = float("inf")) -> float:
        """Return the seconds of a prompt.

        Args:
            tokens: of the prompt.
            entries: cached before it.
            window: entries that a token sees at most.
        """
        if tokens <= 0:
            return 0.0
        seen = min(window, entries + tokens / 2)
        each = self.prefill_seconds + seen * self.prefill_entry_seconds
        return self.pass_seconds + tokens * each

    def copy(self, nbytes: float) -> float:
        """Return the seconds of moving a state one way."""
        return nbytes / self.copy_bytes_per_second


def speed_of(hardware: Hardware, costs: ModelCosts) -> Speed:
    """Return the speed that bandwidth and operations allow; their times add up.

    Adding them is the cautious choice. It was measured to be right on two cores.
    """
    bandwidth, operations = hardware.bytes_per_second, hardware.operations_per_second
    one_pass = hardware.overhead_seconds + costs.weight_bytes / bandwidth
    per_token = costs.operations_per_token / operations
    return Speed(
        step_seconds=one_pass,
        token_seconds=per_token,
        entry_seconds=costs.bytes_per_entry / bandwidth,
        pass_seconds=one_pass,
        prefill_seconds=per_token,
        prefill_entry_seconds=costs.operations_per_entry / operations,
        copy_bytes_per_second=hardware.copy_bytes_per_second,
    )
