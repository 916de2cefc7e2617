"""Evaluate how well texts are predicted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from streamingllm.cli.eval.command import BuildTask, eval_command
from streamingllm.cli.perplexity import check_max_tokens
from streamingllm.evaluation.texts import open_documents

if TYPE_CHECKING:
    from streamingllm.evaluation.tasks.base import Task
    from streamingllm.models import LanguageModel


@eval_command
def perplexity(
    text: Annotated[
        list[str],
        typer.Option(
            help="A UTF-8 file, `pydoc`, or `hub:DATASET` (PG19 is `hub:emozilla/pg19-test`); may "
            "be given several times."
        ),
    ] = ["pydoc"],  # noqa: B006 - typer copies it
    concatenate: Annotated[
        bool, typer.Option("--concatenate", help="Read all texts as one stream, as the paper does.")
    ] = False,
    max_tokens: Annotated[
        int | None, typer.Option(help="Read no more tokens of a text than this; all if not given.")
    ] = None,
    segment_tokens: Annotated[int, typer.Option(help="Tokens of a segment of the report.")] = 4096,
) -> BuildTask:
    """Measure perplexity of many texts.

    Example: `streamingllm eval perplexity --text a.txt --text b.txt --cache 4+1020 --cache dense`
    """
    check_max_tokens(max_tokens)
    documents = [list(open_documents(source)) for source in text]

    def build(lm: LanguageModel) -> Task:
        from streamingllm.evaluation.tasks.perplexity import PerplexityTask, TokenizedText
        from streamingllm.evaluation.texts import read_tokens

        sources = list(zip(text, documents, strict=True))
        if concatenate:
            sources = [(" + ".join(text), [each for found in documents for each in found])]
        texts = [
            TokenizedText(_name(source, number, len(found)), read_tokens(lm, each, max_tokens))
            for source, found in sources
            for number, each in enumerate([found] if concatenate else [[one] for one in found])
        ]
        return PerplexityTask(texts, segment_tokens)

    return build


def _name(source: str, number: int, total: int) -> str:
    name = " + ".join(part.rpartition("/")[2] for part in source.split(" + "))
    return name if total == 1 or " + " in source else f"{name}[{number}]"
