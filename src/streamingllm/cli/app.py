"""The `streamingllm` command and its sub-commands."""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from streamingllm.cli import bench, eval
from streamingllm.cli.chat import chat
from streamingllm.cli.compile import compile
from streamingllm.cli.demo import demo
from streamingllm.cli.gateway import gateway
from streamingllm.cli.generate import generate
from streamingllm.cli.inspect import inspect
from streamingllm.cli.perplexity import perplexity
from streamingllm.cli.plan import plan
from streamingllm.cli.pull import pull
from streamingllm.cli.reproduce import reproduce
from streamingllm.cli.run_record import package_version
from streamingllm.cli.serve import serve
from streamingllm.cli.tune import tune
from streamingllm.errors import StreamingLLMError

_ERROR_EXIT_CODE = 2

app = typer.Typer(
    help="Streams without end, through any decoder, at constant memory.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.command()(demo)
app.command()(chat)
app.command()(generate)
app.command()(perplexity)
app.command()(inspect)
app.command()(reproduce)
app.command()(tune)
app.command()(plan)
app.command()(pull)
app.command()(compile)
app.command()(serve)
app.command()(gateway)
app.add_typer(bench.app, name="bench")
app.add_typer(eval.app, name="eval")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"streamingllm {package_version('streamingllm')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; by default with the arguments of this process.

    An error of ours is one line on standard error and exit code 2, as for a wrong option. Any
    other exception is a defect and keeps its traceback.
    """
    # Imports leave no garbage, and looking for it takes a fifth of their time; see `load_shown`.
    gc.disable()
    try:
        app(args=None if arguments is None else list(arguments), prog_name="streamingllm")
    except StreamingLLMError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(_ERROR_EXIT_CODE)
    finally:
        gc.enable()
