"""Time decode steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamingllm.checks import check_integer
from streamingllm.cli.bench.setup import (
    BenchSettings,
    StartUp,
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

if TYPE_CHECKING:
    from streamingllm.evaluation.speed import DecodeSpeed
    from streamingllm.stream import Stream


def decode(
    model: ModelOption = DEFAULT_MODEL,
    quantize: QuantizeOption = "auto",
    quantize_cache: QuantizeCacheOption = "none",
    dtype: DtypeOption = "auto",
    num_sink_tokens: SinksOption = DEFAULT_SINK_TOKENS,
    window_size: WindowOption = DEFAULT_WINDOW_SIZE,
    batch_size: Annotated[int, typer.Option(help="Streams that decode together.")] = 1,
    start_position: Annotated[
        int | None,
        typer.Option(help="Stream position of the first step; a full cache if not given."),
    ] = None,
    steps: StepsOption = 300,
    threads: ThreadsOption = None,
    compile: CompileOption = True,
    device: DeviceOption = "auto",
    cache_dir: CacheDirOption = None,
    json: JsonOption = None,
) -> None:
    """Time greedy decode steps of streams whose cache is full, so that each step evicts.

    Example: `streamingllm bench decode --quantize int4 --steps 300 --threads 2 --json -`
    """
    check_positive("steps", steps)
    check_positive("batch_size", batch_size)
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
    stream, start_up = full_stream(lm, settings, batch_size, start_position)
    speed = measure_decode(stream, steps)
    human_console(json).print(
        f"{speed.steps.median * 1e3:.2f} ms per step (p95 {speed.steps.p95 * 1e3:.2f}), "
        f"{speed.tokens_per_second:,.0f} tokens/s, {speed.bandwidth_share:.0%} of "
        f"{speed.bandwidth / 1e9:.0f} GB/s, ready after {start_up.total:.1f} s",
        soft_wrap=True,
    )
    if json is not None:
        extra = {"batch_size": batch_size, "start_position": start_position, "steps": steps}
        settings_record = settings.record(lm) | extra
        write_json(
            json, {**report(speed, stream, start_up), "config": settings_record, **run_record()}
        )


def report(speed: DecodeSpeed, stream: Stream, start_up: StartUp) -> dict[str, Any]:
    """Return what programs read of a run."""
    return {
        "milliseconds_per_token": speed.steps.in_milliseconds(),
        "tokens_per_second": speed.tokens_per_second,
        "bandwidth_share": speed.bandwidth_share,
        "bandwidth_bytes_per_second": speed.bandwidth,
        "bytes_per_token": speed.bytes_per_step,
        "startup_seconds": start_up.total,
        "compile_seconds": start_up.compile,
        "cache_bytes": stream.nbytes,
        "compiled": stream.is_compiled,
    }


def check_positive(name: str, value: int) -> None:
    """Refuse a count that is not one or more.

    Raises:
        ConfigError: it is not.
    """
    check_integer(name, value, 1)
