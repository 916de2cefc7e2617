"""Compare decode steps early in a stream and very late in one."""

from __future__ import annotations

import statistics
from functools import partial
from typing import Annotated

import typer

from streamingllm.cli.bench.decode import check_positive
from streamingllm.cli.bench.setup import BenchSettings, full_stream
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
from streamingllm.errors import ConfigError
from streamingllm.models import DEFAULT_MODEL

_TURN = 20


def flatness(
    model: ModelOption = DEFAULT_MODEL,
    quantize: QuantizeOption = "auto",
    quantize_cache: QuantizeCacheOption = "none",
    dtype: DtypeOption = "auto",
    num_sink_tokens: SinksOption = DEFAULT_SINK_TOKENS,
    window_size: WindowOption = DEFAULT_WINDOW_SIZE,
    early: Annotated[int, typer.Option(help="Stream position of the first stream.")] = 10_000,
    late: Annotated[int, typer.Option(help="Stream position of the second.")] = 1_000_000,
    rounds: Annotated[int, typer.Option(help="Times that each takes a turn of 20 steps.")] = 15,
    threads: ThreadsOption = None,
    compile: CompileOption = True,
    device: DeviceOption = "auto",
    cache_dir: CacheDirOption = None,
    json: JsonOption = None,
) -> None:
    """Time the same steps at two stream positions, in turns: the ratio should be one.

    The positions are reached by setting the streams' clocks forward.

    Example: `streamingllm bench flatness --quantize int4 --late 4000000 --json -`
    """
    check_positive("rounds", rounds)
    if late <= early:
        raise ConfigError(f"late={late} is not above early={early}; choose a later position")
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
    from streamingllm.evaluation.speed import Timings, seconds_of

    lm = settings.load()
    seconds: dict[int, list[float]] = {early: [], late: []}
    streams = {p: full_stream(lm, settings, start_position=p)[0] for p in seconds}
    sizes = {p: stream.nbytes for p, stream in streams.items()}
    steps = {p: stream.generate(_TURN * (rounds + 1)) for p, stream in streams.items()}
    for _ in range(rounds + 1):  # the first turn warms up
        for position, tokens in steps.items():
            seconds[position] += [seconds_of(partial(next, tokens)) for _ in range(_TURN)]
    timings = {position: Timings(all_[_TURN:]) for position, all_ in seconds.items()}
    medians = [
        [statistics.median(t.seconds[i : i + _TURN]) for i in range(0, len(t.seconds), _TURN)]
        for t in timings.values()
    ]
    ratio = statistics.median(b / a for a, b in zip(*medians, strict=True))
    human_console(json).print(
        f"{timings[early].median * 1e3:.2f} ms at position {early:,}, "
        f"{timings[late].median * 1e3:.2f} ms at {late:,}: ratio {ratio:.3f}, "
        f"{sizes[late]:,} bytes at both",
        soft_wrap=True,
    )
    if json is not None:
        results = {
            "late_over_early": ratio,
            "milliseconds_per_token": {p: t.in_milliseconds() for p, t in timings.items()},
            "cache_bytes": sizes,
            "cache_bytes_after": {p: stream.nbytes for p, stream in streams.items()},
        }
        config = settings.record(lm) | {"rounds": rounds, "early": early, "late": late}
        write_json(json, {**results, "config": config, **run_record()})
