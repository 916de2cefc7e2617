"""Fetch a model ahead of time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated

import typer

from streamingllm.cli.loading import fetch_progress
from streamingllm.cli.options import CacheDirOption
from streamingllm.cli.output import JsonOption, human_console, write_json
from streamingllm.cli.run_record import run_record
from streamingllm.models import CATALOG, DEFAULT_MODEL, CatalogEntry


def pull(
    model: Annotated[
        str, typer.Argument(help="A catalog name, a hub id, a folder or a .gguf file.")
    ] = DEFAULT_MODEL,
    list_: Annotated[
        bool, typer.Option("--list", help="List the models of the catalog; fetch none.")
    ] = False,
    cache_dir: CacheDirOption = None,
    json: JsonOption = None,
) -> None:
    """Fetch a model, so that later commands need no network.

    Example: `streamingllm pull smollm2-135m-instruct`
    """
    if list_:
        human_console(json).print("\n".join(_lines()), soft_wrap=True)
        if json is not None:
            write_json(json, {"models": [_report(entry) for entry in CATALOG.values()]})
        return
    from streamingllm.models import locate_checkpoint

    with fetch_progress() as progress:
        checkpoint = locate_checkpoint(model, cache_dir=cache_dir, progress=progress)
    human_console(json).print(
        f"{model} is in {checkpoint.path} (from {checkpoint.source})", soft_wrap=True
    )
    if json is not None:
        result = {"model": model, "path": str(checkpoint.path), "source": checkpoint.source}
        write_json(json, {**result, **run_record()})


def _lines() -> Iterator[str]:
    """Yield the catalog as lines in columns."""
    yield _line("name", "on the hub", "parameters", "GB", "licence")
    for entry in CATALOG.values():
        parameters = f"{entry.num_parameters / 1e9:.2f} B"
        gigabytes = f"{entry.weight_bytes / 1e9:.1f}"
        licence = f"{entry.license} (accept it on the hub first)" if entry.gated else entry.license
        yield _line(entry.name, entry.hub_id, parameters, gigabytes, licence)


def _line(name: str, hub_id: str, parameters: str, gigabytes: str, licence: str) -> str:
    return f"{name:<22} {hub_id:<36} {parameters:>10} {gigabytes:>5}  {licence}"


def _report(entry: CatalogEntry) -> dict[str, object]:
    report = asdict(entry)
    report["package"] = None if entry.packaged is None else entry.packaged.requirement
    del report["packaged"]
    return {**report, "is_default": entry.name == DEFAULT_MODEL}
