"""Time the reading of long prompts."""

from __future__ import annotations

from typing import Annotated

import typer

from streamingllm.cli.bench.decode import check_positive
from streamingllm.cli.bench.setup import BenchSettings
from streamingllm.cli.options import (
    CacheDirOption,
    DeviceOption,
    DtypeOption,
    ModelOption,
    QuantizeCacheOption,
    QuantizeOption,
    SinksOption,
    ThreadsOption,
    WindowOption,
)
from streamingllm.cli.output import JsonOption, human_console, write_json
from streamingllm.cli.run_record import run_record
from streamingllm.cli.strategies import DEFAULT_SINK_TOKENS, DEFAULT_WINDOW_SIZE
from streamingllm.evaluation.texts import PYTHON_REFERENCE, open_documents, read_tokens
from streamingllm.models import DEFAULT_MODEL


def prefill(
    model: ModelOption = DEFAULT_MODEL,
    quantize: QuantizeOption = "auto",
    quantize_cache: QuantizeCacheOption = "none",
    dtype: DtypeOption = "bfloat16",
    num_sink_tokens: SinksOption = DEFAULT_SINK_TOKENS,
    window_size: WindowOption = DEFAULT_WINDOW_SIZE,
    tokens: Annotated[int, typer.Option(help="Length of the prompt.")] = 2048,
    rounds: Annotated[int, typer.Option(help="Times it is read.")] = 10,
    threads: ThreadsOption = None,
    device: DeviceOption = "auto",
    cache_dir: CacheDirOption = None,
    json: JsonOption = None,
) -> None:
    """Time the reading of a prompt until the logits of the next token are known.

    Example: `streamingllm bench prefill --tokens 8192 --json -`
    """
    check_positive("tokens", tokens)
    check_positive("rounds", rounds)
    settings = BenchSettings(
        model=model,
        dtype=dtype,
        device=device,
        quantize=quantize,
        quantize_cache=quantize_cache,
        num_sink_tokens=num_sink_tokens,
        window_size=window_size,
        threads=threads,
        compile=False,
        cache_dir=cache_dir,
    )
    from streamingllm.evaluation.speed import Timings, seconds_of
    from streamingllm.stream import Stream

    lm = settings.load()
    ids = read_tokens(lm, open_documents(PYTHON_REFERENCE), tokens)

    def read() -> None:
        Stream(lm.model, settings.config).feed(ids, logits="last")

    read()
    timings = Timings([seconds_of(read) for _ in range(rounds)])
    rate = len(ids) / timings.median
    human_console(json).print(f"{rate:,.0f} tokens/s of a prompt of {len(ids):,} tokens")
    if json is not None:
        results = {
            "tokens_per_second": rate,
            "milliseconds_per_prompt": timings.in_milliseconds(),
            "tokens": len(ids),
        }
        config = settings.record(lm) | {"rounds": rounds, "text": PYTHON_REFERENCE}
        write_json(json, {**results, "config": config, **run_record()})
