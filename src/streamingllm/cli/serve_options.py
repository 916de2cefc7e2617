"""Options of `streamingllm serve`: one for each setting, in panels."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import Field
from pathlib import Path
from typing import Annotated, Any

import typer

from streamingllm.cli.options import CacheDirOption
from streamingllm.server.setting_fields import choices_of, default_of, example_of, facts_of
from streamingllm.server.settings import setting_fields

_TYPES: dict[str, Any] = {
    "text": str,
    "texts": list[str],
    "integer": int,
    "number": float,
    "flag": bool,
    "bytes": str,
}
_MAX_METAVAR = 24  # a longer one takes the place of the text


def _cluster_option(kind: Any, help: str, name: str | None = None) -> Any:
    names = [] if name is None else [name]
    return Annotated[
        kind | None,
        typer.Option(*names, help=help, show_default=False, rich_help_panel="Cluster"),
    ]


_CLUSTER_OPTIONS: dict[str, Any] = {
    "cluster": _cluster_option(
        bool, "Serve with several engines on Ray. Example: `--cluster --replicas 4`", "--cluster"
    ),
    "replicas": _cluster_option(int, "Engines, and the least number of them. Default: 2."),
    "max_replicas": _cluster_option(
        int, "Greatest number of engines; more start as their caches fill. Default: replicas."
    ),
    "resident_bytes": _cluster_option(
        str, "Bytes of caches that an engine is to hold. Default: 4GB. Example: `20GB`"
    ),
    "gateways": _cluster_option(int, "Processes that take requests. Default: 1."),
    "cpus_per_replica": _cluster_option(float, "Processors that an engine reserves. Default: 1."),
    "gpus_per_replica": _cluster_option(float, "GPUs that an engine reserves. Default: 0."),
    "ray_address": _cluster_option(
        str, "Cluster of Ray that runs; one is started here without it. Example: `auto`"
    ),
}


def cluster_fields(flags: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options of a cluster, and those of a server."""
    names = _CLUSTER_OPTIONS.keys()
    return (
        {name: value for name, value in flags.items() if name in names},
        {name: value for name, value in flags.items() if name not in names},
    )


def with_setting_options(command: Callable[..., None]) -> Callable[..., None]:
    """Let typer see all settings, and options of the command itself, as its parameters.

    Args:
        command: takes `config`, `cache_dir`, `print_settings`, `json`, settings by name, and
            options of a cluster by name.
    """
    config = typer.Option(metavar="FILE", help="TOML file of settings.")
    shows = typer.Option("--print-settings", help="Print all settings, without keys, and stop.")
    json = typer.Option("--json", help="Print the ready line, or the settings, as JSON.")
    parameters = [
        *(_parameter(found.name, _annotation(found)) for found in setting_fields()),
        _parameter("config", Annotated[Path | None, config]),
        _parameter("cache_dir", CacheDirOption),
        *(_parameter(name, annotation) for name, annotation in _CLUSTER_OPTIONS.items()),
        _parameter("print_settings", Annotated[bool, shows], False),
        _parameter("json", Annotated[bool, json], False),
    ]
    signature = inspect.Signature(parameters)
    command.__signature__ = signature  # type: ignore[attr-defined]
    command.__annotations__ = {name: p.annotation for name, p in signature.parameters.items()}
    return command


def _annotation(a_setting: Field[Any]) -> Any:
    """Return an option that is None if it was not given; its default is shown only."""
    facts, default, metavar = facts_of(a_setting), default_of(a_setting), _metavar(a_setting)
    shown = "" if metavar and "|" in metavar else choices_of(a_setting)
    shown += f" Default: {default}." if default else ""
    option = typer.Option(
        metavar=metavar,
        help=f"{facts.text}{shown} Example: `{example_of(a_setting)}`",
        show_default=False,
        rich_help_panel=facts.group,
    )
    return Annotated[_TYPES[facts.kind] | None, option]


def _metavar(a_setting: Field[Any]) -> str | None:
    facts, choices = facts_of(a_setting), "|".join(facts_of(a_setting).choices)
    if facts.kind == "flag":
        return None
    if 0 < len(choices) <= _MAX_METAVAR:
        return choices
    return facts.unit.upper() or ("TEXT" if facts.kind in ("text", "texts") else "NUMBER")


def _parameter(name: str, annotation: Any, default: Any = None) -> inspect.Parameter:
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=default, annotation=annotation)
