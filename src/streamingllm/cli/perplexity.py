"""Measure how well a model predicts a long text."""

from __future__ import annotations

import io
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from streamingllm.checks import check_integer
from streamingllm.cli.files import check_writable, write_whole
from streamingllm.cli.loading import load_shown, use_threads
from streamingllm.cli.options import (
    CacheDirOption,
    DeviceOption,
    DtypeOption,
    ModelOption,
    QuantizeCacheOption,
    QuantizeOption,
    SinksOption,
    TextOption,
    ThreadsOption,
    WindowOption,
)
from streamingllm.cli.output import JsonOption, human_console, write_json
from streamingllm.cli.progress_board import ProgressBoard, format_perplexity
from streamingllm.cli.run_record import run_record
from streamingllm.cli.strategies import (
    DEFAULT_SINK_TOKENS,
    DEFAULT_WINDOW_SIZE,
    reported_settings,
    strategy_config,
)
from streamingllm.config import STRATEGIES, StreamConfig
from streamingllm.errors import ConfigError
from streamingllm.evaluation.texts import open_documents
from streamingllm.models import DEFAULT_MODEL

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from streamingllm.evaluation import PerplexityResult, PerplexityRun


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
    quantize: QuantizeOption = "auto",
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
    documents = open_documents(text)
    use_threads(threads)
    from streamingllm.evaluation import PerplexityRun, read_tokens

    lm = load_shown(model, dtype=dtype, device=device, cache_dir=cache_dir, quantize=quantize)
    ids = read_tokens(lm, documents, max_tokens)
    if strategy == "interpolation" and interpolation_factor is None:
        config = replace(config, interpolation_factor=_factor_to_fit(lm.model, len(ids)))
    result = _run_shown(PerplexityRun(lm.model, ids, config))

    _print_result(human_console(json), config, result)
    if nll is not None:
        import numpy as np

        npy = io.BytesIO()
        np.save(npy, result.nll)
        write_whole("nll", nll, npy.getvalue())
    if json is not None:
        settings = {
            "model": model,
            "source": lm.source,
            "text": text,
            "max_tokens": max_tokens,
            "quantize": lm.quantization,
            "weights": lm.weights,
            "rounding_error": lm.rounding_error,
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
    if max_tokens is not None:
        check_integer("max_tokens", max_tokens, 2)


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
    from streamingllm.evaluation.inspection import trained_length

    length = trained_length(model)
    if length is None:
        raise ConfigError(
            "interpolation_factor is missing, and the model does not say how long it was trained "
            "for; give --interpolation-factor"
        )
    return max(1.0, num_tokens / length)


def _run_shown(run: PerplexityRun) -> PerplexityResult:
    console = Console(file=sys.stderr, highlight=False)
    with ProgressBoard(console, {run.stream.config.strategy: run}) as board:
        while not run.is_done:
            run.step()
            board.update()
    return run.result()


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
