"""Serve sessions that never end."""

from __future__ import annotations

import inspect
import json as json_format
import sys
from pathlib import Path
from socket import socket
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamingllm.cli.loading import load_shown, use_threads
from streamingllm.errors import ConfigError
from streamingllm.server.settings import help_of, kind_of, setting_fields

if TYPE_CHECKING:
    from streamingllm.server.settings import ServerSettings

_TYPES: dict[str, Any] = {
    "text": str,
    "texts": list[str],
    "integer": int,
    "number": float,
    "flag": bool,
    "bytes": str,
}
_HINT = "pip install 'streamingllm[server]'"


def serve(*, config: Path | None, json: bool, **flags: Any) -> None:
    """Serve a model over the APIs of OpenAI and Anthropic, in sessions that never end.

    A setting is taken from its flag, else from the environment (`STREAMINGLLM_PORT=8081`), else
    from the TOML file of `--config` (`port = 8081`).

    Example: `streamingllm serve --cache-size 2048 --data-dir ~/chats --api-key "$KEY"`
    """
    try:
        from streamingllm.server.settings_loading import load_settings
    except ImportError as error:
        raise ConfigError(f"serve needs {error.name}, which is missing; run {_HINT}") from error
    given = {name: value for name, value in flags.items() if value not in (None, [])}
    settings = load_settings(given, config)
    from streamingllm.server.running import listen

    use_threads(settings.threads)
    listening = listen(settings)
    lm = load_shown(
        settings.model,
        dtype=settings.dtype,
        device=settings.device,
        cache_dir=None,
        quantize=settings.quantize,
    )
    _run(lm, settings, listening, json)


def _run(lm: Any, settings: ServerSettings, listening: socket, json: bool) -> None:
    import asyncio

    from streamingllm.server.access_log import log_to_stderr
    from streamingllm.server.app import create_app
    from streamingllm.server.assembly import assemble, data_folder
    from streamingllm.server.running import serve as run

    log_to_stderr(settings.log_level)

    def on_ready(port: int) -> None:
        facts = {
            "url": f"http://{settings.host}:{port}",
            "model": settings.model,
            "cache_size": settings.cache_size,
            "max_streams": settings.max_streams,
            "data_dir": str(data_folder(settings)),
        }
        line = (
            f"streamingllm serves {facts['model']} at {facts['url']} (sessions see "
            f"{settings.cache_size} tokens, {settings.max_streams} at once; data in "
            f"{facts['data_dir']})"
        )
        sys.stdout.write((json_format.dumps(facts) if json else line) + "\n")
        sys.stdout.flush()

    async def main() -> None:
        with listening:
            manager = assemble(lm, settings)
            await run(create_app(manager, settings), manager, settings, listening, on_ready)

    asyncio.run(main())


def _options() -> list[inspect.Parameter]:
    """Return an option for each setting; the default is shown, and None means not given."""
    options = []
    for setting in setting_fields():
        kind = kind_of(setting)
        default: Any = setting.default
        shown = f"{default >> 20}MiB" if kind == "bytes" else str(default)
        has_default = default not in (None, (), "")
        option = typer.Option(help=help_of(setting), show_default=shown if has_default else False)
        options.append(_parameter(setting.name, _TYPES[kind] | None, option))
    config = typer.Option(metavar="FILE", help="TOML file of settings.")
    json = typer.Option("--json", help="Print the ready line as JSON.")
    return [
        *options,
        _parameter("config", Path | None, config),
        _parameter("json", bool, json, False),
    ]


def _parameter(name: str, kind: Any, option: Any, default: Any = None) -> inspect.Parameter:
    annotation = Annotated[kind, option]
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
    )


def _take_options() -> None:
    """Let typer see the settings as parameters of the command."""
    signature = inspect.Signature(_options())
    serve.__signature__ = signature  # type: ignore[attr-defined]
    serve.__annotations__ = {n: p.annotation for n, p in signature.parameters.items()}


_take_options()
