"""Say whether a model can stream, and what its cache takes."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from streamingllm.cli.loading import fetch_progress
from streamingllm.cli.options import CacheDirOption, DeviceOption, DtypeOption
from streamingllm.cli.output import JsonOption, human_console, write_json
from streamingllm.cli.run_record import run_record
from streamingllm.cli.strategies import DEFAULT_SINK_TOKENS, DEFAULT_WINDOW_SIZE
from streamingllm.config import StreamConfig
from streamingllm.models import DEFAULT_MODEL

if TYPE_CHECKING:
    from streamingllm.evaluation import LayerGroup, ModelFacts


def inspect(
    model: Annotated[
        str, typer.Argument(help="A catalog name, a hub id, a folder or a .gguf file.")
    ] = DEFAULT_MODEL,
    num_sink_tokens: Annotated[
        int, typer.Option(help="First tokens kept for ever.")
    ] = DEFAULT_SINK_TOKENS,
    window_size: Annotated[
        int, typer.Option(help="Most recent tokens that a token sees, itself included.")
    ] = DEFAULT_WINDOW_SIZE,
    dtype: DtypeOption = "auto",
    device: DeviceOption = "auto",
    cache_dir: CacheDirOption = None,
    json: JsonOption = None,
) -> None:
    """Say whether a model can stream and why, and what its cache would take.

    Reads the configuration and the headers of the files, not the weights.

    Example: `streamingllm inspect HuggingFaceTB/SmolLM2-360M --window-size 4092`
    """
    config = StreamConfig(num_sink_tokens=num_sink_tokens, window_size=window_size)
    with fetch_progress() as progress:
        from streamingllm.models import locate_checkpoint

        checkpoint = locate_checkpoint(model, cache_dir=cache_dir, progress=progress, weights=False)
    from streamingllm.evaluation.checkpoint_inspection import inspect_checkpoint
    from streamingllm.models.placement import resolve_device, resolve_dtype

    facts = inspect_checkpoint(
        checkpoint, config, dtype=resolve_dtype(dtype), device=resolve_device(device)
    )
    _print_facts(human_console(json), model, config, facts)
    if json is not None:
        settings = {
            "model": model,
            "source": checkpoint.source,
            "num_sink_tokens": num_sink_tokens,
            "window_size": window_size,
        }
        write_json(json, {**_report(facts), "config": settings, **run_record()})


def _report(facts: ModelFacts) -> dict[str, object]:
    layers = [{"count": count, **asdict(group)} for group, count in facts.layers]
    return {"can_stream": facts.refusal is None, **asdict(facts), "layers": layers}


def _print_facts(console: Console, model: str, config: StreamConfig, facts: ModelFacts) -> None:
    length = "not stated" if facts.trained_length is None else f"{facts.trained_length:,} tokens"
    rows = [
        ("model", model),
        ("family", facts.family),
        ("parameters", f"{facts.parameters:,} in {facts.dtype}"),
        ("trained length", length),
    ]
    rows += [("layers", _describe(group, count)) for group, count in facts.layers]
    if facts.bytes_per_cached_token is not None and facts.cache_bytes is not None:
        cache = f"{config.num_sink_tokens:,} + {config.window_size:,} tokens"
        rows += [
            ("per cached token", f"{facts.bytes_per_cached_token:,} bytes"),
            ("cache", f"{facts.cache_bytes / 1e6:,.1f} MB for {cache}, however long the stream"),
        ]
    if facts.state_bytes:
        rows.append(("recurrent states", f"{facts.state_bytes / 1e6:,.1f} MB of the cache"))
    rows.append(("can stream", "yes" if facts.refusal is None else f"no: {facts.refusal}"))
    table = Table.grid(padding=(0, 2))
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _describe(group: LayerGroup, count: int) -> str:
    attention = group.attention
    if group.own_window is not None:
        attention += f" (own window of {group.own_window:,} tokens)"
    sizes = f"{group.key_size}"
    if group.value_size != group.key_size:
        sizes += f" for keys and {group.value_size} for values"
    return (
        f"{count} {attention}, positions {group.position_encoding}, {group.num_kv_heads} key/value "
        f"heads of size {sizes}, keeping {group.num_sink_tokens} + {group.window_size:,} tokens"
    )
