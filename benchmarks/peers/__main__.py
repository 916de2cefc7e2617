"""Write and read beside every peer, in turn: `python -m benchmarks.peers --help`."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks.peers import pages
from benchmarks.peers.contestants import PeerError, chosen
from benchmarks.peers.conversions import CONVERTED, checkpoint_folder
from benchmarks.peers.programs.protocol import Settings
from benchmarks.peers.tasks import Tasks
from streamingllm import load_model
from streamingllm.cli.files import write_whole
from streamingllm.cli.output import human_console, write_json
from streamingllm.cli.run_record import run_record
from streamingllm.evaluation.texts import open_documents, read_tokens

SEED = 0
NUM_SINK_TOKENS = 4
TEXT = "pydoc"


def text_tokens(count: int) -> list[int]:
    """Return the first tokens of Python's own reference."""
    ids: list[int] = read_tokens(
        load_model(checkpoint_folder()), open_documents(TEXT), count
    ).tolist()
    return ids


def template(threads: int, num_tokens: int) -> Settings:
    """Return what all contestants have in common; tasks fill in the rest."""
    return Settings(
        weights="",
        rule="",
        num_sink_tokens=NUM_SINK_TOKENS,
        window_size=0,
        threads=threads,
        text=text_tokens(num_tokens),
        checkpoint=str(checkpoint_folder()),
        converted=str(CONVERTED),
    )


def main(
    only: Annotated[
        list[str] | None, typer.Option(help="A peer or a row of the table; may be repeated.")
    ] = None,
    window_size: Annotated[
        list[int] | None, typer.Option(help="Recent tokens kept; may be repeated.")
    ] = None,
    prompt_tokens: Annotated[
        list[int] | None, typer.Option(help="Length of a prompt, 0 for none; may be repeated.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each at writing.")] = 10,
    steps: Annotated[int, typer.Option(min=1, help="Timed steps per turn.")] = 30,
    prompt_rounds: Annotated[int, typer.Option(min=1, help="Turns of each at reading.")] = 3,
    threads: Annotated[int, typer.Option(min=1, help="Worker threads of each.")] = 2,
    table: Annotated[Path | None, typer.Option(help="Where a Markdown table goes.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Where a PNG image goes.")] = None,
    json: Annotated[str, typer.Option(help="Where results go; `-` prints them.")] = "-",
) -> None:
    """Time our stream and its peers, in turn: same model, same cache, same threads.

    Environments and converted models are made on first use, under .bench/. A peer that fails is
    named in the results with the reason, and the others go on.

    Example: python -m benchmarks.peers --only ours --only llama_cpp --rounds 2 --steps 5
    """
    try:
        contestants = chosen(only or [])
    except PeerError as error:
        raise typer.BadParameter(str(error)) from error
    windows = window_size or [1020, 2044]
    prompts = [length for length in (prompt_tokens or [2048, 8192]) if length > 0]
    torch.set_num_threads(threads)
    longest = max([*(NUM_SINK_TOKENS + m for m in windows), *(prompt_rounds + n for n in prompts)])
    tasks = Tasks(contestants, template(threads, longest), random.Random(SEED))
    for window in windows:
        tasks.write_tokens(window, rounds, steps)
    for length in prompts:
        tasks.read_prompt(length, prompt_rounds)
    record = run_record(SEED)
    page = pages.table(tasks.decode, tasks.reading)
    if table is not None:
        write_whole("table", table, page.encode())
    if plot is not None:
        title = f"SmolLM2-135M, {threads} threads of {record['hardware']['cpu']}"
        write_whole("plot", plot, pages.plot(tasks.decode, title))
    human_console(json).print(page, soft_wrap=True)
    settings = {
        "text": TEXT,
        "num_sink_tokens": NUM_SINK_TOKENS,
        "rounds": rounds,
        "steps": steps,
        "prompt_rounds": prompt_rounds,
        "threads": threads,
    }
    figures = {"decode": tasks.decode, "reading": tasks.reading, "failures": tasks.failures}
    write_json(json, {**settings, **figures, **record})


if __name__ == "__main__":
    typer.run(main)
