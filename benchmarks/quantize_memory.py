"""Measure the peak memory of packing bfloat16 shards, in a process of its own.

Run: `python -m benchmarks.quantize_memory --json benchmarks/results/quantize-memory.json`

A random Llama is written in shards. A child process loads it and notes, every few milliseconds, its
anonymous memory: pages of mapped files are left out, because the system can drop them.
"""

from __future__ import annotations

import json as json_format
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from transformers import LlamaConfig, LlamaForCausalLM

from streamingllm import load_model
from streamingllm.cli.output import write_json
from streamingllm.cli.run_record import run_record
from tests.reference.tiny_folder import byte_tokenizer

SIZES: dict[str, Any] = {
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "vocab_size": 8_000,
}
SEED = 0
_INTERVAL_SECONDS = 0.005


def anonymous_bytes() -> int:
    """Return the anonymous resident memory of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status has no RssAnon; run this on Linux")


class Peak:
    """Watch the anonymous memory of this process while the body runs."""

    def __enter__(self) -> Peak:
        self.start = self.highest = anonymous_bytes()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()
        self.end = anonymous_bytes()

    def _watch(self) -> None:
        while not self._stop.wait(_INTERVAL_SECONDS):
            self.highest = max(self.highest, anonymous_bytes())


def write_model(folder: Path) -> None:
    """Write the shards of a random model in bfloat16."""
    torch.manual_seed(SEED)
    model = LlamaForCausalLM(LlamaConfig(**SIZES)).bfloat16()
    model.save_pretrained(folder, max_shard_size="64MB")
    byte_tokenizer().save_pretrained(folder)


def measure(folder: Path, quantize: str) -> dict[str, Any]:
    """Load the model here; return its peak and what is held afterwards."""
    with Peak() as peak:
        lm = load_model(
            folder, device="cpu", quantize=quantize, calibration_tokens=0, cache_dir=folder / "c"
        )
    tensors = [*lm.model.parameters(), *lm.model.buffers()]
    held = sum({t.data_ptr(): t.nbytes for t in tensors}.values())
    files = sum(f.stat().st_size for f in folder.glob("*.safetensors"))
    return {
        "quantize": quantize,
        "file_bytes": files,
        "held_bytes": held,
        "peak_bytes": peak.highest - peak.start,
        "end_bytes": peak.end - peak.start,
        "largest_tensor_float32_bytes": 4 * SIZES["vocab_size"] * SIZES["hidden_size"],
    }


def main(
    json: Annotated[Path | None, typer.Option(help="Write the result here.")] = None,
    child: Annotated[str | None, typer.Option(hidden=True)] = None,
    folder: Annotated[Path | None, typer.Option(hidden=True)] = None,
) -> None:
    """Measure each quantisation in a process of its own."""
    if child is not None and folder is not None:
        print(json_format.dumps(measure(folder, child)))
        return
    rows = []
    with tempfile.TemporaryDirectory() as name:
        write_model(Path(name))
        for quantize in ("none", "int8", "int4"):
            command = [sys.executable, "-m", "benchmarks.quantize_memory", "--child", quantize]
            run = subprocess.run(
                [*command, "--folder", name], capture_output=True, text=True, check=True
            )
            rows.append(json_format.loads(run.stdout.splitlines()[-1]))
            print(rows[-1])
    if json is not None:
        write_json(str(json), {"loads": rows, "config": SIZES, **run_record(SEED)})


if __name__ == "__main__":
    typer.run(main)
