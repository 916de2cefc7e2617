"""Serve sessions that never end."""

from __future__ import annotations

import json as json_format
import sys
from pathlib import Path
from socket import socket
from typing import TYPE_CHECKING, Any

from streamingllm.cli.loading import load_shown, use_threads
from streamingllm.cli.serve_options import cluster_fields, with_setting_options
from streamingllm.errors import ConfigError
from streamingllm.server.setting_fields import facts_of
from streamingllm.server.settings import setting_fields

if TYPE_CHECKING:
    from streamingllm.server.settings import ServerSettings

_HINT = "pip install 'streamingllm[server]'"
_CLUSTER_HINT = "pip install 'streamingllm[cluster]'"


@with_setting_options
def serve(
    *, config: Path | None, cache_dir: Path | None, print_settings: bool, json: bool, **flags: Any
) -> None:
    """Serve a model over the APIs of OpenAI and Anthropic, in sessions that never end.

    A setting is taken from its flag, else from the environment (`STREAMINGLLM_PORT=8081`), else
    from the TOML file of `--config` (`port = 8081`). Lists are repeated flags, or `a, b` in the
    environment. Sizes are written as `500MB` or `2GB`.

    With `--cluster`, several engines on Ray share one store; see docs/cluster.md.

    Example: `streamingllm serve --cache-size 2048 --data-dir ~/chats --api-key "$KEY"`
    """
    try:
        from streamingllm.server.settings_loading import load_settings
    except ImportError as error:
        raise ConfigError(f"serve needs {error.name}, which is missing; run {_HINT}") from error
    given = {name: value for name, value in flags.items() if value not in (None, [])}
    of_cluster, given = cluster_fields(given)
    settings = load_settings(given, config)
    if print_settings:
        _print(settings, json)
        return
    if of_cluster:
        _serve_cluster(settings, of_cluster, cache_dir, json)
        return
    from streamingllm.server.running import listen

    use_threads(settings.threads)
    listening = listen(settings)
    lm = load_shown(
        settings.model,
        dtype=settings.dtype,
        device=settings.device,
        cache_dir=cache_dir,
        quantize=settings.quantize,
    )
    _run(lm, settings, listening, json)


def _serve_cluster(
    settings: ServerSettings, fields: dict[str, Any], cache_dir: Path | None, json: bool
) -> None:
    """Serve with several engines.

    Raises:
        ConfigError: `--cluster` is not set, a value is out of range, or a package is missing.
    """
    if not fields.pop("cluster", False):
        raise ConfigError(f"{next(iter(fields))} needs a cluster; set --cluster as well")
    from streamingllm.cluster.settings import cluster_settings

    cluster = cluster_settings(fields)
    try:
        from streamingllm.cluster.running import serve_until_signal
    except ImportError as error:
        raise ConfigError(
            f"--cluster needs {error.name}, which is missing; run {_CLUSTER_HINT}"
        ) from error

    def on_ready(port: int) -> None:
        facts = {
            "url": f"http://{settings.host}:{port}",
            "model": settings.model,
            "replicas": cluster.replicas,
            "max_replicas": cluster.max_replicas or cluster.replicas,
        }
        line = (
            f"streamingllm serves {facts['model']} at {facts['url']} ({facts['replicas']} engines)"
        )
        sys.stdout.write((json_format.dumps(facts) if json else line) + "\n")
        sys.stdout.flush()

    serve_until_signal(settings, cluster, cache_dir, on_ready)


def _run(lm: Any, settings: ServerSettings, listening: socket, json: bool) -> None:
    import asyncio

    from streamingllm.server.app import create_app
    from streamingllm.server.assembly import assemble
    from streamingllm.server.json_log import log_to_stderr
    from streamingllm.server.running import serve as run
    from streamingllm.server.session_store import data_folder

    log_to_stderr(settings.log_level, shows_user_text=settings.log_user_text)

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


def _print(settings: ServerSettings, json: bool) -> None:
    """Print settings as JSON, or as a file for `--config`; of keys only their number is shown."""
    secrets = {found.name for found in setting_fields() if facts_of(found).is_secret}
    values = {
        found.name: len(_as_tuple(getattr(settings, found.name)))
        if found.name in secrets
        else getattr(settings, found.name)
        for found in setting_fields()
    }
    if json:
        sys.stdout.write(json_format.dumps(values, indent=2) + "\n")
        return
    defaults = type(settings)()
    for name, value in values.items():
        is_comment = name in secrets or getattr(settings, name) == getattr(defaults, name)
        text = "not set" if value is None else json_format.dumps(value, ensure_ascii=False)
        shown = f"{name}: {value} hidden" if name in secrets else f"{name} = {text}"
        sys.stdout.write(f"{'# ' if is_comment else ''}{shown}\n")


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,) if value else ()
