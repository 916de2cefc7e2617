"""Time decode steps of more and more streams at once."""

from __future__ import annotations

from typing import Annotated

import typer

from streamingllm.cli.bench.decode import check_positive, report
from streamingllm.cli.bench.setup import (
    BenchSettings,
    StepsOption,
    full_stream,
)
from streamingllm.cli.options import (
    CacheDirOption,
    CompileOption,
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
from streamingllm.models import DEFAULT_MODEL

_SIZES = (1, 2, 4, 8, 16)


def batch(
    model: ModelOption = DEFAULT_MODEL,
    quantize: QuantizeOption = "auto",
    quantize_cache: QuantizeCacheOption = "none",
    dtype: DtypeOption = "auto",
    num_sink_tokens: SinksOption = DEFAULT_SINK_TOKENS,
    window_size: WindowOption = DEFAULT_WINDOW_SIZE,
    batch_size: Annotated[
        list[int] | None,
        typer.Option(help="Streams that decode together; may be given several times."),
    ] = None,
    steps: StepsOption = 100,
    threads: ThreadsOption = None,
    compile: CompileOption = True,
    device: DeviceOption = "auto",
    cache_dir: CacheDirOption = None,
    json: JsonOption = None,
) -> None:
    """Time decode steps of 1, 2, 4, 8 and 16 streams at once.

    Example: `streamingllm bench batch --quantize int4 --batch-size 1 --batch-size 32 --json -`
    """
    sizes = batch_size or list(_SIZES)
    for size in sizes:
        check_positive("batch_size", size)
    check_positive("steps", steps)
    settings = BenchSettings(
        model=model,
        dtype=dtype,
        device=device,
        quantize=quantize,
        quantize_cache=quantize_cache,
        num_sink_tokens=num_sink_tokens,
        window_size=window_size,
        threads=threads,
        compile=compile,
        cache_dir=cache_dir,
    )
    from streamingllm.evaluation.speed import measure_decode

    lm = settings.load()
    console = human_console(json)
    results = {}
    for size in sizes:
        stream, start_up = full_stream(lm, settings, size)
        speed = measure_decode(stream, steps)
        results[size] = report(speed, stream, start_up)
        gain = speed.tokens_per_second / results[sizes[0]]["tokens_per_second"]
        console.print(
            f"{size:3} streams: {speed.tokens_per_second:8,.0f} tokens/s, "
            f"{speed.steps.median * 1e3:6.2f} ms per step, {gain:.2f} x {sizes[0]}"
        )
    if json is not None:
        config = settings.record(lm) | {"steps": steps}
        write_json(json, {"batch_sizes": results, "config": config, **run_record()})
