"""Sweep every class that transformers maps: whether it streams, how exactly, or why not.

python -m benchmarks.sweep --json benchmarks/results/sweep.json
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from benchmarks.progress import shown
from streamingllm.cli.output import write_json
from streamingllm.cli.run_record import run_record
from tests.sweep.checks import LIMITS, differences, refusal
from tests.sweep.fields import VARIANTS
from tests.sweep.reviewed import NOT_BUILT
from tests.sweep.small_models import CAUSAL, MULTIMODAL, small_model


def measure(name: str) -> dict[str, Any]:
    """Return a family's verdict, with its largest difference from any oracle or its reason."""
    if name in NOT_BUILT:
        return {"verdict": "not built", "reason": NOT_BUILT[name]}
    model = small_model(name)
    try:
        reason = refusal(model)
        if reason is not None:
            return {"verdict": "refused", "reason": reason}
        found = differences(name, model)
    except Exception as error:  # a crash is what is looked for
        return {"verdict": "fails", "reason": f"{type(error).__name__}: {error}"}
    is_right = all(apart <= LIMITS[oracle] for oracle, apart in found.items())
    return {"verdict": "streams" if is_right else "is wrong", "largest_logit_difference": found}


def counts(results: dict[str, dict[str, Any]], names: tuple[str, ...]) -> dict[str, int]:
    """Return how many of some families have each verdict."""
    verdicts = [results[name]["verdict"] for name in names]
    return {verdict: verdicts.count(verdict) for verdict in sorted(set(verdicts))}


def main(
    json: Annotated[str, typer.Option(help="Where results go; `-` prints them.")] = "-",
    only: Annotated[str, typer.Option(help="Names, separated by commas; all without it.")] = "",
) -> None:
    """Sweep all families and write JSON, from which docs/families.md is made.

    Example: python -m benchmarks.sweep --only llama,gemma3
    """
    names = tuple(only.split(",")) if only else (*CAUSAL, *MULTIMODAL, *VARIANTS)
    results = {name: measure(name) for name in shown(names, "families")}
    groups = {"causal": CAUSAL, "multimodal": MULTIMODAL, "variants": tuple(VARIANTS)}
    members = {group: tuple(n for n in all_ if n in results) for group, all_ in groups.items()}
    write_json(
        json,
        {
            "families": results,
            "counts": {group: counts(results, some) for group, some in members.items()},
            **run_record(),
        },
    )


if __name__ == "__main__":
    typer.run(main)
