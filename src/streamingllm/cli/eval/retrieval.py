"""Evaluate how well lines and numbers of a long text are found again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from streamingllm.cli.eval.command import (
    BootstrapSeedOption,
    BuildTask,
    TemplateOption,
    eval_command,
)
from streamingllm.cli.eval.made_task import made_task

SamplesOption = Annotated[int, typer.Option("--samples", help="Independent texts.")]


@eval_command
def streameval(
    samples: SamplesOption = 1,
    queries: Annotated[int, typer.Option(help="Questions of a sample; 500 in the paper.")] = 100,
    line_distance: Annotated[
        int, typer.Option(help="Lines from the line asked for to the question.")
    ] = 20,
    lines_per_query: Annotated[int, typer.Option(help="Lines between questions.")] = 10,
    keep: Annotated[
        str, typer.Option(help="What stays in the stream: `query`, or the model's `answer` too.")
    ] = "query",
    score: Annotated[
        str, typer.Option(help="The first integer after `<` (`bracket`) or the `last` integer.")
    ] = "bracket",
    template: TemplateOption = "raw",
    seed: BootstrapSeedOption = 0,
) -> BuildTask:
    """Ask for numbers some lines back in an endless record, in the paper's form (figure 8).

    The cache `fresh:TOKENS` shows the score without eviction: each answer comes from a dense pass
    over the last TOKENS tokens.

    Example: `streamingllm eval streameval --queries 100 --cache 4+1020 --cache fresh:1024`
    """
    return made_task(
        "streameval",
        samples,
        queries,
        line_distance,
        lines_per_query=lines_per_query,
        keep=keep,
        score=score,
        template=template,
        seed=seed,
    )


@eval_command
def longeval(
    samples: Annotated[
        int | None, typer.Option(help="Prompts; all of --data, else 10, if not given.")
    ] = None,
    lines: Annotated[int, typer.Option(help="Lines of a prompt that is made.")] = 200,
    data: Annotated[
        Path | None,
        typer.Option(metavar="FILE.jsonl", help="LongEval's own prompts instead of made ones."),
    ] = None,
    template: TemplateOption = "chat",
    seed: BootstrapSeedOption = 0,
) -> BuildTask:
    """Ask for the number of one named line of a long record (LongEval).

    Example: `streamingllm eval longeval --lines 40 --cache 4+1020 --cache dense`
    """
    return made_task("longeval", samples, lines, data=data, template=template, seed=seed)


@eval_command
def passkey(
    samples: SamplesOption = 10,
    fillers: Annotated[int, typer.Option(help="Lines without content, 22 tokens each.")] = 200,
    template: TemplateOption = "raw",
    seed: BootstrapSeedOption = 0,
) -> BuildTask:
    """Ask for a pass key at evenly spread depths of a long text.

    Example: `streamingllm eval passkey --fillers 100 --cache 4+1020 --cache dense`
    """
    return made_task("passkey", samples, fillers, template=template, seed=seed)
