"""Fetch a model ahead of time."""

from __future__ import annotations

from typing import Annotated

import typer

from streamingllm.cli.loading import fetch_progress
from streamingllm.cli.options import CacheDirOption
from streamingllm.cli.output import JsonOption, human_console, write_json
from streamingllm.cli.run_record import run_record
from streamingllm.models import DEFAULT_MODEL


def pull(
    model: Annotated[
        str, typer.Argument(help="A catalog name, a hub id, a folder or a .gguf file.")
    ] = DEFAULT_MODEL,
    cache_dir: CacheDirOption = None,
    json: JsonOption = None,
) -> None:
    """Fetch a model, so that later commands need no network.

    Example: `streamingllm pull smollm2-135m-instruct`
    """
    from streamingllm.models import locate_checkpoint

    with fetch_progress() as progress:
        checkpoint = locate_checkpoint(model, cache_dir=cache_dir, progress=progress)
    human_console(json).print(
        f"{model} is in {checkpoint.path} (from {checkpoint.source})", soft_wrap=True
    )
    if json is not None:
        result = {"model": model, "path": str(checkpoint.path), "source": checkpoint.source}
        write_json(json, {**result, **run_record()})
