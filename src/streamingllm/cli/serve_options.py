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


def with_setting_options(command: Callable[..., None]) -> Callable[..., None]:
    """Let typer see all settings, and options of the command itself, as its parameters.

    Args:
        command: takes `config`, `cache_dir`, `print_settings`, `json` and settings by name.
    """
    config = typer.Option(metavar="FILE", help="TOML file of settings.")
    shows = typer.Option("--print-settings", help="Print all settings, without keys, and stop.")
    json = typer.Option("--json", help="Print the ready line, or the settings, as JSON.")
    parameters = [
        *(_parameter(found.name, _annotation(found)) for found in setting_fields()),
        _parameter("config", Annotated[Path | None, config]),
        _parameter("cache_dir", CacheDirOption),
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
