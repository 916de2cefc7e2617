"""Add a memory to any server with OpenAI's API."""

from __future__ import annotations

import json as json_format
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from streamingllm.errors import ConfigError

_HINT = "pip install 'streamingllm[server]'"
_RECALL_TOKENS = 400
_KEY_VARIABLE = "STREAMINGLLM_UPSTREAM_KEY"


def gateway(
    upstream: Annotated[str, typer.Option(help="URL of the server that answers.")],
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 for a free one.")] = 8081,
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder of the sessions; by default the user's data folder.")
    ] = None,
    recall_tokens: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Bound on the recalled texts of a turn, four bytes a token; by default 400, or a "
            "fifth of --context-limit.",
        ),
    ] = None,
    context_limit: Annotated[
        int, typer.Option(min=0, help="Tokens of the server's context; 0 leaves nothing out.")
    ] = 0,
    keep_share: Annotated[
        float, typer.Option(help="Of the limit, what stays when the oldest turns are left out.")
    ] = 0.5,
    warm_share: Annotated[
        float, typer.Option(help="Of the limit, from where the next rollover is warmed; 1 never.")
    ] = 0.8,
    answer_tokens: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Room for an answer whose request does not bound it; by default a quarter of the "
            "limit.",
        ),
    ] = None,
    tokenizer: Annotated[
        str,
        typer.Option(
            help="Counts tokens: a tokenizer.json, a folder with one, or a hub id; else they are "
            "estimated."
        ),
    ] = "",
    memory_encoder: Annotated[
        str, typer.Option(help="Encoder whose similarity is added, such as minilm.")
    ] = "",
    page: Annotated[bool, typer.Option(help="Show the page at /.")] = True,
    max_body_bytes: Annotated[int, typer.Option(min=1, help="Longest request.")] = 32 << 20,
    json: Annotated[bool, typer.Option(help="Print the address as JSON.")] = False,
) -> None:
    """Answer through another server, with a log of all sessions, recall from it, and a page at /.

    With --context-limit a chat of any length stays within the server's context: the system prompt
    and the latest turns are sent, and each answer says what was left out.

    A request names its session by the header `x-session-id`, or `metadata.session_id`; else the
    messages that it repeats find it. The key of a client is passed on, unless
    STREAMINGLLM_UPSTREAM_KEY is set.

    Example: `streamingllm gateway --upstream http://127.0.0.1:11434 --port 8081`
    """
    try:
        import platformdirs
        import uvicorn

        from streamingllm.gateway.app import create_gateway
        from streamingllm.gateway.rollover import Rollover, RolloverSettings
        from streamingllm.gateway.session_log import SessionLog
        from streamingllm.gateway.token_count import estimated_tokens, token_counter
        from streamingllm.gateway.turn_memory import TurnMemory
        from streamingllm.gateway.upstream import Upstream
        from streamingllm.memory.encoder import load_encoder
        from streamingllm.server.origins import LOOPBACK_NAMES
    except ImportError as error:
        raise ConfigError(f"gateway needs {error.name}, which is missing; run {_HINT}") from error
    if recall_tokens is None:
        recall_tokens = context_limit // 5 if context_limit else _RECALL_TOKENS
    count_tokens = token_counter(tokenizer) if tokenizer else estimated_tokens
    rollover = None
    if context_limit:
        room = context_limit // 4 if answer_tokens is None else answer_tokens
        rollover = Rollover(
            RolloverSettings(context_limit, keep_share, warm_share, room, recall_tokens),
            count_tokens,
        )
    folder = data_dir or Path(platformdirs.user_data_dir("streamingllm"))
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    sends_to = Upstream(upstream, key=os.environ.get(_KEY_VARIABLE, ""))
    encoder = load_encoder(memory_encoder) if memory_encoder else None
    log = SessionLog(folder / "gateway.sqlite", count_tokens, encoder)
    app = create_gateway(
        sends_to,
        TurnMemory(log, recall_tokens),
        rollover,
        has_page=page,
        hosts=LOOPBACK_NAMES if host in LOOPBACK_NAMES else (),
        max_body_bytes=max_body_bytes,
    )
    config = uvicorn.Config(app, host=host, port=port, log_level="warning", server_header=False)
    listening = config.bind_socket()
    facts = {
        "url": f"http://{host}:{listening.getsockname()[1]}",
        "upstream": sends_to.url,
        "data_dir": str(folder),
    }
    line = f"streamingllm answers at {facts['url']} through {facts['upstream']} (data in {folder})"
    sys.stdout.write((json_format.dumps(facts) if json else line) + "\n")
    sys.stdout.flush()
    uvicorn.Server(config).run(sockets=[listening])
