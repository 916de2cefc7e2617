"""Measure every hybrid family's distance from both oracles of tests/reference/hybrid_oracles.py.

python -m benchmarks.hybrid_families --json benchmarks/results/hybrid-families.json
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.progress import shown
from streamingllm import SinkCache
from streamingllm.cli.output import write_json
from streamingllm.cli.run_record import run_record
from tests.reference.family_passes import IDS, NUM_TOKENS, difference, random_sizes, stream
from tests.reference.hybrid_oracles import banded_logits, looped_logits
from tests.reference.hybrids import HYBRIDS, hybrid_model

SHAPES = ((2, 6), (4, 12))


def measure(name: str) -> dict[str, Any]:
    """Return the largest logit differences of one family, over shapes and splits."""
    facts = HYBRIDS[name].attention
    found: dict[str, Any] = {"float64": 0.0, "float32": 0.0, "oracles": 0.0}
    for n, m in SHAPES:
        oracles = (
            banded_logits(hybrid_model(name), facts, IDS, n, m),
            looped_logits(hybrid_model(name), facts, IDS, n, m),
        )
        found["oracles"] = max(found["oracles"], difference(*oracles))
        for dtype in ("float64", "float32"):
            model = hybrid_model(name, getattr(torch, dtype))
            for sizes in ([NUM_TOKENS], [1] * NUM_TOKENS, [*random_sizes(NUM_TOKENS, seed=n)]):
                with SinkCache(model, n, m, max_rewind_tokens=4) as cache:
                    logits = stream(cache, model, IDS, sizes)
                    found["is_fed_one_by_one"] = cache.attachment.passes.stepwise
                    assert cache.states is not None
                    found["state_bytes"] = cache.states.nbytes
                apart = max(difference(logits, oracle) for oracle in oracles)
                found[dtype] = max(found[dtype], apart)
    return found


def main(
    json: Annotated[str, typer.Option(help="Where results go; `-` prints them.")] = "-",
) -> None:
    """Measure all hybrid families; write a table and JSON."""
    results = {name: measure(name) for name in shown(HYBRIDS, "hybrid families")}
    table = Table("family", "oracles", "float64", "float32")
    for name, found in results.items():
        table.add_row(name, *(f"{found[key]:.1e}" for key in ("oracles", "float64", "float32")))
    Console(stderr=True).print(table)
    write_json(json, {"largest_logit_difference": results, **run_record()})


if __name__ == "__main__":
    typer.run(main)
