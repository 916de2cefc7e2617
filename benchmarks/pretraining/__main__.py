"""Train tiny decoders with and without sinks, and let each read on with 0 to 4 of them.

Run: `python -m benchmarks.pretraining --json benchmarks/results/pretraining.json`
On a GPU: `python -m benchmarks.pretraining --json gpu.json --device cuda --width 512 \
    --num-layers 10 --num-heads 8 --trained-length 512 --cache-size 384 --num-tokens 2048 \
    --batch-size 64 --steps 15000 --num-bytes 400000000 --learning-rate 0.001`

Five position encodings have plain softmax. With RoPE there are four kinds of sink: a trained token
before each text, softmax1 (a constant logit of 0), a trained logit per head, and a gate on the
output of each head. Models that the file has are left out, so that a run that was stopped goes on.
Source: tables 3 and 10 of Xiao et al. (arXiv 2309.17453).
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.pretraining.decoder import ENCODINGS, SINKS, Arm
from benchmarks.pretraining.export import EXPORTED_ENCODINGS, save_checkpoint
from benchmarks.pretraining.measures import NUMBERS_OF_SINKS, attention_to_first, losses_by_column
from benchmarks.pretraining.training import held_out_texts, train
from streamingllm.cli.output import write_json
from streamingllm.cli.run_record import run_record

ARMS = (*(("rope", sink) for sink in SINKS), *((other, "none") for other in ENCODINGS[1:]))


def main(
    json_file: Annotated[Path, typer.Option("--json", help="File of the results.")],
    steps: Annotated[int, typer.Option(help="Of training.")] = 1000,
    seeds: Annotated[int, typer.Option(help="Models of each arm.")] = 3,
    batch_size: Annotated[int, typer.Option(help="Samples of a step.")] = 8,
    learning_rate: Annotated[float, typer.Option(help="At its highest.")] = 1e-2,
    width: Annotated[int, typer.Option(help="Of the decoder.")] = 64,
    num_layers: Annotated[int, typer.Option(help="Of the decoder.")] = 3,
    num_heads: Annotated[int, typer.Option(help="Of each layer.")] = 4,
    trained_length: Annotated[int, typer.Option(help="Bytes of a sample.")] = 64,
    cache_size: Annotated[int, typer.Option(help="Entries of every cache.")] = 48,
    num_texts: Annotated[int, typer.Option(help="That each model reads.")] = 8,
    num_tokens: Annotated[int, typer.Option(help="Bytes of each text.")] = 384,
    num_bytes: Annotated[int, typer.Option(help="Most that is trained on.")] = 4_000_000,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    save: Annotated[
        Path | None, typer.Option(help="Folder for a checkpoint of each model that can stream.")
    ] = None,
) -> None:
    """Train and read arm by arm, and write the results after each."""
    shape = {"width": width, "num_layers": num_layers, "num_heads": num_heads}
    config = {
        **shape, "trained_length": trained_length, "steps": steps, "batch_size": batch_size,
        "learning_rate": learning_rate, "num_bytes": num_bytes, "cache_size": cache_size,
        "num_texts": num_texts, "num_tokens": num_tokens,
    }  # fmt: skip
    rows = finished_rows(json_file, config)
    for seed in range(seeds):
        for encoding, sink in ARMS:
            name = f"{encoding}, {sink}, seed {seed}"
            if name in rows:
                continue
            arm, start = Arm(encoding, sink, trained_length, **shape), time.perf_counter()
            decoder = train(
                arm, steps=steps, batch_size=batch_size, seed=seed, learning_rate=learning_rate,
                device=device, num_bytes=num_bytes,
            )  # fmt: skip
            if save is not None and encoding in EXPORTED_ENCODINGS:
                save_checkpoint(decoder, save / name.replace(", ", "-").replace(" ", "-"))
            texts = held_out_texts(num_texts, num_tokens).to(device)
            rows[name] = {
                "arm": asdict(arm),
                **losses_by_column(decoder, texts, cache_size, NUMBERS_OF_SINKS, seed),
                **attention_to_first(decoder, texts),
                "seconds": time.perf_counter() - start,
            }
            found = {"summary": summary(rows), "rows": rows, "config": config}
            write_json(str(json_file), {**found, "device": device, **run_record(seed)})


def finished_rows(json_file: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the rows of an earlier run with the same config, by name of the model."""
    if not json_file.is_file():
        return {}
    kept = json.loads(json_file.read_text())
    return dict(kept["rows"]) if kept["config"] == config else {}


def summary(rows: Mapping[str, Any]) -> dict[str, Any]:
    """Return the mean of each arm over its seeds, and the lowest and the highest."""
    by_arm: dict[str, list[Any]] = {}
    for name, row in rows.items():
        by_arm.setdefault(name.rpartition(", ")[0], []).append(row)
    return {
        arm: {
            "nll": {
                column: _spread([row["nll"][column]["value"] for row in found])
                for column in found[0]["nll"]
            },
            "above_last": {
                column: _spread([row["above_last"][column]["value"] for row in found])
                for column in found[0]["above_last"]
            },
            "nll_within_trained_length": _spread(
                [row["nll_within_trained_length"] for row in found]
            ),
            "sink_rate_of_first": _spread([row["sink_rates"][0] for row in found]),
            "highest_attention_to_first": _spread([row["highest_attention"][0] for row in found]),
        }
        for arm, found in by_arm.items()
    }


def _spread(values: list[float]) -> dict[str, float]:
    return {"mean": sum(values) / len(values), "low": min(values), "high": max(values)}


if __name__ == "__main__":
    typer.run(main)
