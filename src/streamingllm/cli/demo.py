"""A model reads far past its trained length: what goes on, and what breaks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from streamingllm.cli.files import check_writable, write_whole
from streamingllm.cli.loading import load_shown, use_threads
from streamingllm.cli.options import (
    CacheDirOption,
    DeviceOption,
    ModelOption,
    SinksOption,
    TextOption,
    ThreadsOption,
    WindowOption,
)
from streamingllm.cli.output import JsonOption, human_console, write_json
from streamingllm.cli.perplexity import check_max_tokens, report
from streamingllm.cli.progress_board import ProgressBoard, format_perplexity
from streamingllm.cli.run_record import run_record
from streamingllm.cli.strategies import (
    DEFAULT_SINK_TOKENS,
    DEFAULT_WINDOW_SIZE,
    reported_settings,
    strategy_config,
)
from streamingllm.config import StreamConfig
from streamingllm.evaluation.texts import PYTHON_REFERENCE, open_documents, read_tokens
from streamingllm.models import DEFAULT_MODEL

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from streamingllm.evaluation import PerplexityResult, PerplexityRun
    from streamingllm.models import LanguageModel

DEMO_TOKENS = 32_768
# Dense attention is broken long before, and each of its tokens costs more than the last.
_DENSE_TRAINED_LENGTHS = 2


@dataclass(frozen=True, eq=False)
class _Contestant:
    run: PerplexityRun
    cache_samples: list[tuple[int, int]] = field(default_factory=list)

    def step(self) -> None:
        self.run.step()
        self.cache_samples.append((self.run.num_prefilled_tokens, self.run.stream.nbytes))


def demo(
    model: ModelOption = DEFAULT_MODEL,
    text: TextOption = "pydoc",
    max_tokens: Annotated[int, typer.Option(help="Read no more tokens than this.")] = DEMO_TOKENS,
    num_sink_tokens: SinksOption = DEFAULT_SINK_TOKENS,
    window_size: WindowOption = DEFAULT_WINDOW_SIZE,
    dtype: Annotated[
        str | None,
        typer.Option(
            help="auto, float64, float32, bfloat16 or float16; if not given, bfloat16 where the "
            "processor computes in it.",
        ),
    ] = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    plot: Annotated[Path, typer.Option(metavar="FILE.png", help="Where the plot goes.")] = Path(
        "streamingllm-demo.png"
    ),
    cache_dir: CacheDirOption = None,
    json: JsonOption = "streamingllm-demo.json",
) -> None:
    """Read a text far past the trained length with attention sinks, and with what breaks.

    Three streams take turns, chunk by chunk: sinks and a window, a window of the same size without
    sinks, and dense attention. The last stops at twice the trained length. All take about three
    minutes on two cores.

    Example: `streamingllm demo --max-tokens 100000`
    """
    assert json is not None
    configs = _configs(num_sink_tokens, window_size)
    check_max_tokens(max_tokens)
    check_writable("plot", plot)
    documents = open_documents(text)
    use_threads(threads)
    from streamingllm.evaluation import PerplexityRun
    from streamingllm.evaluation.inspection import trained_length

    console = human_console(json)
    lm = load_shown(model, dtype=dtype or _fast_dtype(), device=device, cache_dir=cache_dir)
    ids = read_tokens(lm, documents, max_tokens)
    limits = dict.fromkeys(configs, len(ids)) | {"dense": _dense_limit(lm.model, len(ids))}
    console.print(_introduction(lm, text, limits), soft_wrap=True)
    contestants = {
        name: _Contestant(PerplexityRun(lm.model, ids[: limits[name]], config))
        for name, config in configs.items()
    }
    _race(console, contestants)

    results = {name: contestant.run.result() for name, contestant in contestants.items()}
    console.print(results_table(results))
    write_whole("plot", plot, _draw(lm, configs["sinks"], contestants, results))
    settings = {
        "model": model,
        "source": lm.source,
        "text": text,
        "max_tokens": max_tokens,
        "trained_length": trained_length(lm.model),
        "dtype": str(lm.model.dtype).removeprefix("torch."),
        "device": str(lm.model.device),
    }
    strategies = {
        name: {**report(result), "config": reported_settings(configs[name])}
        for name, result in results.items()
    }
    write_json(json, {"strategies": strategies, "config": settings, **run_record()})
    console.print(f"Plot: {plot}. Numbers: {json}.", soft_wrap=True)
    console.print(_moral(configs["sinks"]), soft_wrap=True)


def _configs(num_sink_tokens: int, window_size: int) -> dict[str, StreamConfig]:
    sinks = strategy_config("sinks", num_sink_tokens=num_sink_tokens, window_size=window_size)
    # As many entries as the sinks and the window together, so that both hold the same bytes.
    window = strategy_config("window", window_size=sinks.cache_size)
    return {"sinks": sinks, "window": window, "dense": strategy_config("dense")}


def _fast_dtype() -> str:
    """Return bfloat16 where the processor multiplies it in hardware, else `auto`."""
    import torch

    # torch 2.8 cannot say what its processor can.
    capabilities: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    native = any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return "bfloat16" if native or torch.cuda.is_available() else "auto"


def _dense_limit(model: PreTrainedModel, num_tokens: int) -> int:
    from streamingllm.evaluation.inspection import trained_length

    length = trained_length(model)
    return num_tokens if length is None else min(num_tokens, _DENSE_TRAINED_LENGTHS * length)


def _introduction(lm: LanguageModel, text: str, limits: Mapping[str, int]) -> str:
    from streamingllm.evaluation.inspection import trained_length

    length = trained_length(lm.model)
    trained = "" if length is None else f", trained on {length:,} at a time,"
    source = "Python's own reference" if text == PYTHON_REFERENCE else text
    tokens, dense_tokens = limits["sinks"], limits["dense"]
    stop = f"; dense attention stops after {dense_tokens:,}" if dense_tokens < tokens else ""
    return f"{lm.name}{trained} reads {tokens:,} tokens of {source} in three ways at once{stop}."


def _race(console: Console, contestants: Mapping[str, _Contestant]) -> None:
    runs = {name: contestant.run for name, contestant in contestants.items()}
    with ProgressBoard(console, runs) as board:
        while running := [c for c in contestants.values() if not c.run.is_done]:
            for contestant in running:
                contestant.step()
                board.update()


def results_table(results: Mapping[str, PerplexityResult]) -> Table:
    table = Table(box=None, pad_edge=False, title="Perplexity by segment", title_justify="left")
    for heading in ("tokens", *results):
        table.add_column(heading, justify="right")
    longest = max(results.values(), key=lambda result: result.tokens)
    rows = zip_longest(*(r.segments for r in results.values()), fillvalue=math.nan)
    for number, row in enumerate(rows):
        start = number * longest.segment_size
        end = min(start + longest.segment_size, longest.tokens)
        table.add_row(f"{start:,} to {end:,}", *map(format_perplexity, row))
    table.add_row()
    table.add_row("tokens/s", *(f"{r.tokens_per_second:,.0f}" for r in results.values()))
    table.add_row("cache bytes", *(f"{r.cache_bytes:,}" for r in results.values()))
    return table


def _draw(
    lm: LanguageModel,
    sinks: StreamConfig,
    contestants: Mapping[str, _Contestant],
    results: Mapping[str, PerplexityResult],
) -> bytes:
    from streamingllm.evaluation.inspection import trained_length
    from streamingllm.evaluation.plots import Curve, plot_strategies

    labels = {
        "sinks": f"{sinks.num_sink_tokens} sinks + window of {sinks.window_size:,}",
        "window": f"window of {sinks.cache_size:,}, no sinks",
        "dense": "dense",
    }
    curves = [
        Curve(labels[name], result.nll, contestants[name].cache_samples)
        for name, result in results.items()
    ]
    num_tokens = results["sinks"].tokens
    landmarks = {"cache full": sinks.cache_size}
    if (length := trained_length(lm.model)) is not None and length < num_tokens:
        landmarks["trained length"] = length
    return plot_strategies(curves, landmarks, f"{lm.name} reads {num_tokens:,} tokens")


def _moral(sinks: StreamConfig) -> str:
    return (
        "A window is not a memory: the stream stays fluent for ever, but the model knows nothing "
        f"of what it read before the last {sinks.window_size:,} tokens, save "
        f"{sinks.num_sink_tokens} at the very start."
    )
