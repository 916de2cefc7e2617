"""Measure how well a model predicts a long text."""

from __future__ import annotations

import io
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table
from transformers import PreTrainedModel

from streamingllm.cli.files import check_writable, write_whole
from streamingllm.cli.loading import load_shown
from streamingllm.cli.options import (
    CacheDirOption,
    DeviceOption,
    DtypeOption,
    ModelOption,
    QuantizeCacheOption,
    QuantizeOption,
)
from streamingllm.cli.output import JsonOption, human_console, write_json
from streamingllm.cli.prefill_board import ReadingBoard, format_perplexity
from streamingllm.cli.run_record import run_record
from streamingllm.cli.strategies import (
    DEFAULT_SINK_TOKENS,
    DEFAULT_WINDOW_SIZE,
    reported_settings,
    strategy_config,
)
from streamingllm.config import STRATEGIES, StreamConfig
from streamingllm.errors import ConfigError
from streamingllm.evaluation import PerplexityResult, Reading, open_documents, read_tokens
from streamingllm.evaluation.inspection import trained_length
from streamingllm.models import DEFAULT_MODEL

TextOption = Annotated[
    str,
    typer.Option(
        "--text",
        metavar="TEXT",
        help="A UTF-8 file, `pydoc` (Python's own reference), or `hub:DATASET`.",
    ),
]
SinksOption = Annotated[
    int, typer.Option("--num-sink-tokens", help="First tokens kept for ever (`sinks`).")
]
WindowOption = Annotated[
    int,
    typer.Option("--window-size", help="Most recent tokens that a token sees, itself included."),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option("--threads", help="Processor threads; torch's own choice if not given."),
]


def perplexity(
    model: ModelOption = DEFAULT_MODEL,
    text: TextOption = "pydoc",
    strategy: Annotated[str, typer.Option(help=f"One of {', '.join(STRATEGIES)}.")] = "sinks",
    num_sink_tokens: SinksOption = DEFAULT_SINK_TOKENS,
    window_size: WindowOption = DEFAULT_WINDOW_SIZE,
    interpolation_factor: Annotated[
        float | None,
        typer.Option(
            help="Divisor of positions (`interpolation`); tokens / trained length if not given."
        ),
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(help="Read no more tokens than this; all if not given.")
    ] = None,
    chunk_size: Annotated[
        int | None, typer.Option(help="Tokens per forward pass; changes speed, not results.")
    ] = None,
    quantize: QuantizeOption = "none",
    quantize_cache: QuantizeCacheOption = "none",
    dtype: DtypeOption = "auto",
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    nll: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.npy",
            help="Write the loss of each token but the first, in nats, as float32.",
        ),
    ] = None,
    cache_dir: CacheDirOption = None,
    json: JsonOption = None,
) -> None:
    """Measure how well a model predicts a long text, under any strategy.

    Example: `streamingllm perplexity --text book.txt --window-size 508 --json result.json`
    """
    config = strategy_config(
        strategy,
        num_sink_tokens=num_sink_tokens,
        window_size=window_size,
        interpolation_factor=interpolation_factor,
        chunk_size=chunk_size,
        quantize_cache=quantize_cache,
    )
    check_max_tokens(max_tokens)
    check_writable("nll", nll)
    use_threads(threads)
    documents = open_documents(text)
    lm = load_shown(model, dtype=dtype, device=device, cache_dir=cache_dir, quantize=quantize)
    ids = read_tokens(lm, documents, max_tokens)
    if strategy == "interpolation" and interpolation_factor is None:
        config = replace(config, interpolation_factor=_factor_to_fit(lm.model, len(ids)))
    result = _read_shown(Reading(lm.model, ids, config))

    _print_result(human_console(json), config, result)
    if nll is not None:
        npy = io.BytesIO()
        np.save(npy, result.nll)
        write_whole("nll", nll, npy.getvalue())
    if json is not None:
        settings = {
            "model": model,
            "source": lm.source,
            "text": text,
            "max_tokens": max_tokens,
            "quantize": quantize,
            **reported_settings(config),
            "dtype": str(lm.model.dtype).removeprefix("torch."),
            "device": str(lm.model.device),
        }
        write_json(json, {**report(result), "config": settings, **run_record()})


def check_max_tokens(max_tokens: int | None) -> None:
    """Refuse a text of which nothing could be predicted.

    Raises:
        ConfigError: `max_tokens` is less than two.
    """
    if max_tokens is not None and max_tokens < 2:
        raise ConfigError(f"max_tokens={max_tokens}: must be a whole number >= 2")


def use_threads(threads: int | None) -> None:
    """Let torch use that many processor threads; None leaves it its own choice.

    Raises:
        ConfigError: `threads` is less than one.
    """
    if threads is None:
        return
    if threads < 1:
        raise ConfigError(f"threads={threads}: must be a whole number >= 1")
    torch.set_num_threads(threads)


def report(result: PerplexityResult) -> dict[str, object]:
    """Return what programs read of a result."""
    return {
        "perplexity": result.perplexity,
        "tokens": result.tokens,
        "tokens_per_second": result.tokens_per_second,
        "seconds": result.seconds,
        "cache_bytes": result.cache_bytes,
        "segments": result.segments,
        "segment_tokens": result.segment_size,
    }


def _factor_to_fit(model: PreTrainedModel, num_tokens: int) -> float:
    """Return the factor that squeezes a text into the positions a model was trained on."""
    length = trained_length(model)
    if length is None:
        raise ConfigError(
            "interpolation_factor: must be given, since the model does not say how long it was "
            "trained for"
        )
    return max(1.0, num_tokens / length)


def _read_shown(reading: Reading) -> PerplexityResult:
    console = Console(file=sys.stderr, highlight=False)
    with ReadingBoard(console, {reading.stream.config.strategy: reading}) as board:
        while not reading.done:
            reading.step()
            board.update()
    return reading.result()


def _print_result(console: Console, config: StreamConfig, result: PerplexityResult) -> None:
    console.print(
        f"{config.strategy}: perplexity {result.perplexity:.3f} of {result.tokens:,} tokens, "
        f"{result.tokens_per_second:,.0f} tokens/s, {result.cache_bytes / 1e6:,.1f} MB of keys "
        "and values",
        soft_wrap=True,
    )
    table = Table(box=None, pad_edge=False)
    table.add_column("tokens", justify="right")
    table.add_column("perplexity", justify="right")
    for number, segment in enumerate(result.segments):
        start = number * result.segment_size
        end = min(start + result.segment_size, result.tokens)
        table.add_row(f"{start:,} to {end:,}", format_perplexity(segment))
    console.print(table)
