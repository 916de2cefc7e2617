"""Measure every family's distance from both oracles of tests/reference/oracles.py.

python -m benchmarks.families --json benchmarks/results/families.json
"""

from __future__ import annotations

from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.progress import shown
from streamingllm import SinkCache
from streamingllm.cli.output import write_json
from streamingllm.cli.run_record import run_record
from tests.reference.families import FAMILIES, model_of
from tests.reference.family_passes import IDS, NUM_TOKENS, difference, random_sizes, stream
from tests.reference.oracles import banded_logits, token_by_token_logits


def measure(name: str) -> dict[str, float]:
    """Return the largest logit differences of one family, over its shapes and two splits."""
    family, worst = FAMILIES[name], {"float64": 0.0, "float32": 0.0}
    for n, m in family.shapes:
        facts = family.facts(n + m)
        oracles = (
            banded_logits(model_of(name), facts, IDS, n, m),
            token_by_token_logits(model_of(name), facts, IDS, n, m),
        )
        for dtype in worst:
            model = model_of(name, getattr(torch, dtype))
            for sizes in ([NUM_TOKENS], list(random_sizes(NUM_TOKENS, seed=n))):
                with SinkCache(model, n, m) as cache:
                    logits = stream(cache, model, IDS, sizes)
                apart = max(difference(logits, oracle) for oracle in oracles)
                worst[dtype] = max(worst[dtype], apart)
    return worst


def main(
    json: Annotated[str, typer.Option(help="Where results go; `-` prints them.")] = "-",
) -> None:
    """Measure all families; write a table and JSON."""
    results = {name: measure(name) for name in shown(FAMILIES, "families")}
    table = Table("family", "class", "float64", "float32")
    for name, apart in results.items():
        figures = (f"{apart[dtype]:.1e}" for dtype in ("float64", "float32"))
        table.add_row(name, FAMILIES[name].model_type, *figures)
    Console(stderr=True).print(table)
    write_json(json, {"largest_logit_difference": results, **run_record()})


if __name__ == "__main__":
    typer.run(main)
