"""Plan machines and money for sessions without end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from streamingllm.checks import check_choice
from streamingllm.cli.loading import fetch_progress, load_shown, use_threads
from streamingllm.cli.options import (
    CacheDirOption,
    DeviceOption,
    DtypeOption,
    QuantizeOption,
    SinksOption,
    ThreadsOption,
    WindowOption,
)
from streamingllm.cli.output import JsonOption, human_console, write_json
from streamingllm.cli.run_record import run_record
from streamingllm.cli.strategies import DEFAULT_SINK_TOKENS, DEFAULT_WINDOW_SIZE
from streamingllm.config import StreamConfig
from streamingllm.evaluation.capacity.workload import Workload
from streamingllm.models import DEFAULT_MODEL

if TYPE_CHECKING:
    from streamingllm.evaluation.capacity.forecast import Forecast
    from streamingllm.evaluation.capacity.model_costs import ModelCosts
    from streamingllm.evaluation.capacity.speed import Speed

_GIGABYTE = 1e9
_HARDWARE = ("epyc-2", "l4", "a6000", "a100", "h100", "h200")


def plan(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A catalog name, a hub id, a folder or a file.")
    ] = DEFAULT_MODEL,
    users: Annotated[float, typer.Option(help="People or programs.")] = 1000,
    sessions_per_user: Annotated[float, typer.Option(help="That each of them keeps.")] = 1,
    turns_a_day: Annotated[float, typer.Option(help="Of a user, over all sessions.")] = 20,
    prompt_tokens: Annotated[float, typer.Option(help="New tokens of a turn.")] = 60,
    answer_tokens: Annotated[float, typer.Option(help="Generated tokens of a turn.")] = 200,
    history_tokens: Annotated[
        float, typer.Option(help="Of a session before a turn, on average.")
    ] = 20_000,
    peak_factor: Annotated[
        float, typer.Option(help="Turns of the busiest hour over those of an average one.")
    ] = 3,
    num_sink_tokens: SinksOption = DEFAULT_SINK_TOKENS,
    window_size: WindowOption = DEFAULT_WINDOW_SIZE,
    hardware: Annotated[str, typer.Option(help=f"Among {', '.join(_HARDWARE)}.")] = "epyc-2",
    memory: Annotated[
        float | None, typer.Option(help="Gigabytes for weights and streams; else the hardware's.")
    ] = None,
    max_streams: Annotated[int, typer.Option(help="That a machine decodes at once.")] = 32,
    host_memory: Annotated[float, typer.Option(help="Gigabytes for idle sessions.")] = 4,
    disk: Annotated[float, typer.Option(help="Gigabytes for snapshots.")] = 100,
    price: Annotated[float | None, typer.Option(help="Of a machine for an hour.")] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Measure this machine instead of using figures.")
    ] = False,
    quantize: QuantizeOption = "auto",
    dtype: DtypeOption = "auto",
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    cache_dir: CacheDirOption = None,
    json: JsonOption = None,
) -> None:
    """Plan bytes, machines and money, next to a dense cache, re-sending and re-computation.

    Figures of GPUs are those of data sheets. Use --measure on the machine in question.

    Example: `streamingllm plan --users 5000 --hardware h100 --price 2.5 --quantize int4`
    """
    work = Workload(
        users=users,
        sessions_per_user=sessions_per_user,
        turns_a_day=turns_a_day,
        prompt_tokens=prompt_tokens,
        answer_tokens=answer_tokens,
        history_tokens=history_tokens,
        peak_factor=peak_factor,
    )
    check_choice("hardware", hardware, _HARDWARE)
    config = StreamConfig(num_sink_tokens=num_sink_tokens, window_size=window_size)
    from streamingllm.evaluation.capacity.forecast import METHODS, Machine, forecast
    from streamingllm.evaluation.capacity.speed import HARDWARE, speed_of

    named = HARDWARE[hardware]
    machine = Machine(
        memory_bytes=named.memory_bytes if memory is None else memory * _GIGABYTE,
        max_streams=max_streams,
        host_bytes=host_memory * _GIGABYTE,
        disk_bytes=disk * _GIGABYTE,
        price_per_hour=price,
    )
    costs = _costs(model, config, quantize, dtype, device, cache_dir)
    if measure:
        use_threads(threads)
        speed, source = _measured(model, config, quantize, dtype, device, cache_dir), "measured now"
    else:
        speed, source = speed_of(named, costs), named.source
    found = [forecast(method, costs, speed, work, machine) for method in METHODS]
    console = human_console(json)
    console.print(_table(found, costs))
    console.print(f"speed: {source}", soft_wrap=True)
    if json is not None:
        payload: dict[str, Any] = {
            "methods": {one.method: one.to_json() for one in found},
            "costs": asdict(costs),
            "speed": {**asdict(speed), "source": source},
            "workload": {**asdict(work), "tokens_a_day": work.tokens_a_day},
            "machine": asdict(machine),
            "config": {
                "model": model,
                "quantize": quantize,
                "num_sink_tokens": num_sink_tokens,
                "window_size": window_size,
                "hardware": None if measure else hardware,
            },
        }
        write_json(json, {**payload, **run_record()})


def _costs(
    model: str,
    config: StreamConfig,
    quantize: str,
    dtype: str,
    device: str,
    cache_dir: Path | None,
) -> ModelCosts:
    """Inspect a model without its weights."""
    with fetch_progress() as progress:
        from streamingllm.models import locate_checkpoint

        checkpoint = locate_checkpoint(model, cache_dir=cache_dir, progress=progress, weights=False)
    from streamingllm.evaluation.capacity.model_costs import WEIGHT_BITS, costs_of
    from streamingllm.evaluation.checkpoint_inspection import inspect_checkpoint
    from streamingllm.models.placement import resolve_device, resolve_dtype

    if quantize == "auto":
        quantize = "none" if checkpoint.gguf_file is None else "native"
    if quantize in WEIGHT_BITS and dtype == "auto":
        dtype = "bfloat16"  # as `load_model` chooses for all else of such a model
    facts = inspect_checkpoint(
        checkpoint, config, dtype=resolve_dtype(dtype), device=resolve_device(device)
    )
    return costs_of(facts, config, quantize)


def _measured(
    model: str,
    config: StreamConfig,
    quantize: str,
    dtype: str,
    device: str,
    cache_dir: Path | None,
) -> Speed:
    """Measure the speed of this machine."""
    lm = load_shown(model, dtype=dtype, device=device, cache_dir=cache_dir, quantize=quantize)
    from streamingllm.evaluation.capacity.calibration import measure_speed

    return measure_speed(lm, config)


def _table(found: Sequence[Forecast], costs: ModelCosts) -> Table:
    """Lay methods out as columns."""
    table = Table("", *(one.method for one in found))
    rows: dict[str, list[str]] = {
        "MB per running stream": [f"{one.device_bytes_per_stream / 1e6:,.1f}" for one in found],
        "MB per idle session": [f"{one.idle_bytes_per_session / 1e6:,.1f}" for one in found],
        "GB of text and ids": [f"{one.log_bytes / 1e9:,.1f}" for one in found],
        "streams at once": [f"{one.slots:,}" for one in found],
        "tokens/s for a user": [f"{one.tokens_per_second:,.1f}" for one in found],
        "seconds to the first token": [f"{one.first_token_seconds:,.3f}" for one in found],
        "machine seconds per turn": [f"{one.seconds_per_turn:,.3f}" for one in found],
        "turns that replay": [f"{one.replay_share:.0%}" for one in found],
        "machines": [f"{one.machines:,}" for one in found],
    }
    for name, cells in rows.items():
        table.add_row(name, *cells)
    if found[0].price_a_month is not None:
        table.add_row("price a month", *(f"{one.price_a_month or 0:,.0f}" for one in found))
    if costs.trained_length is not None:
        answers = ["yes" if one.is_within_trained_length else "no" for one in found]
        table.add_row(f"within {costs.trained_length:,} trained positions", *answers)
    return table
