"""Evaluate answers to questions of data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from streamingllm.cli.eval.command import BuildTask, DataOption, TemplateOption, eval_command
from streamingllm.cli.eval.made_task import made_task

MaxQuestionsOption = Annotated[
    int | None, typer.Option("--max-questions", help="Read no more questions than this.")
]


@eval_command
def arc_stream(
    data: DataOption,
    max_questions: MaxQuestionsOption = None,
    answer: Annotated[str, typer.Option(help="The `text` of an option or its `letter`.")] = "text",
    lists_options: Annotated[
        bool, typer.Option("--options/--no-options", help="List the options below a question.")
    ] = True,
) -> BuildTask:
    """Answer ARC's questions in one stream of questions and gold answers (table 5).

    The cache `fresh:TOKENS` answers each question after one example: the one-shot baseline.

    Example: `streamingllm eval arc-stream --data arc.jsonl --cache 4+1020 --cache fresh:1024`
    """
    return made_task("arc-stream", data, max_questions, answer=answer, lists_options=lists_options)


@eval_command
def gsm8k(
    data: DataOption,
    max_questions: MaxQuestionsOption = None,
    shots: Annotated[int, typer.Option(help="Worked examples before each question.")] = 0,
    examples: Annotated[
        Path | None, typer.Option(metavar="FILE.jsonl", help="Where the examples come from.")
    ] = None,
    pin_question: Annotated[
        bool, typer.Option("--pin-question", help="Keep the question for ever.")
    ] = False,
    max_new_tokens: Annotated[
        int, typer.Option(help="Bound on the model's own answer; 0 scores gold answers only.")
    ] = 0,
) -> BuildTask:
    """Score GSM8K's gold answers under a window, question pinned or not.

    Example: `streamingllm eval gsm8k --data gsm8k.jsonl --cache 4+60 --cache dense`
    """
    return made_task(
        "gsm8k",
        data,
        max_questions,
        shots=shots,
        examples=examples,
        pins_question=pin_question,
        max_new_tokens=max_new_tokens,
    )


@eval_command
def mt_bench(
    data: DataOption,
    turns: Annotated[
        int | None, typer.Option(help="Messages to ask; each of the data once if not given.")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Bound on an answer.")] = 128,
    template: TemplateOption = "chat",
) -> BuildTask:
    """Ask MT-bench's questions in one conversation without end.

    Example: `streamingllm eval mt-bench --data mt-bench.jsonl --turns 40 --cache 4+1020`
    """
    return made_task("mt-bench", data, turns, max_new_tokens=max_new_tokens, template=template)
