"""Time the steps of streams that write while a long prompt arrives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from streamingllm.cli.bench.decode import check_positive
from streamingllm.cli.bench.setup import BenchSettings, StepsOption
from streamingllm.cli.loading import compile_shown
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
from streamingllm.evaluation.texts import PYTHON_REFERENCE, open_documents, read_tokens
from streamingllm.models import DEFAULT_MODEL

if TYPE_CHECKING:
    from streamingllm.engine import Engine

_WARM_UP = 10


def stall(
    model: ModelOption = DEFAULT_MODEL,
    quantize: QuantizeOption = "auto",
    quantize_cache: QuantizeCacheOption = "none",
    dtype: DtypeOption = "auto",
    num_sink_tokens: SinksOption = DEFAULT_SINK_TOKENS,
    window_size: WindowOption = DEFAULT_WINDOW_SIZE,
    streams: Annotated[int, typer.Option(help="Streams that write, their caches full.")] = 8,
    prompt_tokens: Annotated[int, typer.Option(help="Length of the prompt.")] = 20_000,
    max_stall: Annotated[
        float, typer.Option(help="How many times as long a step may take while it is read.")
    ] = 2.0,
    steps: StepsOption = 100,
    threads: ThreadsOption = None,
    compile: CompileOption = True,
    device: DeviceOption = "auto",
    cache_dir: CacheDirOption = None,
    json: JsonOption = None,
) -> None:
    """Time the steps of streams that write, before and while a long prompt arrives.

    Example: `streamingllm bench stall --streams 8 --prompt-tokens 20000 --json -`
    """
    for name, value in (("streams", streams), ("prompt_tokens", prompt_tokens), ("steps", steps)):
        check_positive(name, value)
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
    from streamingllm.engine import Engine
    from streamingllm.evaluation.speed import Timings, seconds_of
    from streamingllm.stream.sampling import SamplingParams

    lm = settings.load()
    text = read_tokens(lm, open_documents(PYTHON_REFERENCE), prompt_tokens).tolist()
    ids = text * -(-max(prompt_tokens, settings.config.cache_size + 1) // len(text))
    with Engine(lm, settings.config, max_streams=streams + 1, max_stall=max_stall) as engine:
        if compile:
            compile_shown(engine)
        _decode_with_full_caches(engine, ids[: settings.config.cache_size + 1], streams)
        alone = Timings([seconds_of(engine.step) for _ in range(_WARM_UP + steps)][_WARM_UP:])
        prompt = engine.open_stream()
        engine.submit(prompt, ids[:prompt_tokens], SamplingParams(max_new_tokens=1))
        seconds = []
        while engine.state(prompt) != "idle":
            seconds.append(seconds_of(engine.step))
        beside = Timings(seconds)
        compiled = engine.stats().is_compiled
    ratio = beside.p95 / alone.p95
    human_console(json).print(
        f"p95 of a step of {streams} streams: {alone.p95 * 1e3:.1f} ms, while a prompt of "
        f"{prompt_tokens:,} tokens is read {beside.p95 * 1e3:.1f} ms: ratio {ratio:.2f}; it "
        f"took {sum(seconds):.1f} s, {prompt_tokens / sum(seconds):,.0f} tokens/s",
        soft_wrap=True,
    )
    if json is not None:
        results = {
            "p95_ratio": ratio,
            "milliseconds_per_step": {
                "alone": alone.in_milliseconds(),
                "beside_a_prompt": beside.in_milliseconds(),
            },
            "steps_beside_a_prompt": len(seconds),
            "prompt_seconds": sum(seconds),
            "prompt_tokens_per_second": prompt_tokens / sum(seconds),
            "compiled": compiled,
        }
        config = settings.record(lm) | {
            "streams": streams,
            "prompt_tokens": prompt_tokens,
            "max_stall": max_stall,
            "steps": steps,
            "text": PYTHON_REFERENCE,
        }
        write_json(json, {**results, "config": config, **run_record()})


def _decode_with_full_caches(engine: Engine, ids: list[int], num_streams: int) -> None:
    """Let streams decode whose caches are full: one that was prefilled, and its forks."""
    from streamingllm.stream.sampling import SamplingParams

    first, endless = engine.open_stream(), SamplingParams(max_new_tokens=None, ignore_eos=True)
    engine.submit(first, ids, endless)
    while not engine.usage(first).num_generated_tokens:
        engine.step()
    for _ in range(num_streams - 1):
        engine.fork(first)
