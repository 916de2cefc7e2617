"""`streamingllm eval`: score a model under several caches."""

from __future__ import annotations

import typer

from streamingllm.cli.eval.questions import arc_stream, gsm8k, mt_bench
from streamingllm.cli.eval.retrieval import longeval, passkey, streameval
from streamingllm.cli.eval.texts import perplexity

app = typer.Typer(
    help="Score a model under several caches, side by side.\n\n"
    "Example: `streamingllm eval streameval --cache 4+1020 --cache 0+1024 --json result.json`",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
app.command("perplexity")(perplexity)
app.command("streameval")(streameval)
app.command("arc-stream")(arc_stream)
app.command("longeval")(longeval)
app.command("passkey")(passkey)
app.command("gsm8k")(gsm8k)
app.command("mt-bench")(mt_bench)
