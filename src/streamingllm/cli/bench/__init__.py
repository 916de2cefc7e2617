"""`streamingllm bench`: how fast this machine reads and writes."""

from __future__ import annotations

import typer

from streamingllm.cli.bench.batch import batch
from streamingllm.cli.bench.decode import decode
from streamingllm.cli.bench.flatness import flatness
from streamingllm.cli.bench.prefill import prefill
from streamingllm.cli.bench.stall import stall

app = typer.Typer(
    help="Measure how fast this machine reads and writes, beside what its memory allows.\n\n"
    "Example: `streamingllm bench decode --quantize int4 --json -`",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
app.command()(decode)
app.command()(prefill)
app.command()(batch)
app.command()(flatness)
app.command()(stall)
