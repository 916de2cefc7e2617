"""Run a server until a signal: drain, write snapshots, end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import socket
from collections.abc import Callable, Iterator

import uvicorn
from fastapi import FastAPI

from streamingllm.errors import ConfigError
from streamingllm.server.settings import ServerSettings
from streamingllm.sessions.manager import SessionManager

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_BACKLOG = 1024
# Longer than clients and proxies keep a connection, so that none is closed under a request.
_KEEP_ALIVE_SECONDS = 75


class Server(uvicorn.Server):
    """Serve until a signal; running turns may end, a second signal cuts them off.

    Args:
        config: of uvicorn.
        app: which is told that it drains.
        on_ready: called with the port once requests are accepted.
    """

    def __init__(
        self, config: uvicorn.Config, app: FastAPI, on_ready: Callable[[int], None]
    ) -> None:
        super().__init__(config)
        self._app = app
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        if self.started:
            # A full collection stops every stream, so let it pass over modules and model.
            gc.collect()
            gc.freeze()
            self._on_ready(self.servers[0].sockets[0].getsockname()[1])

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take signals in the event loop."""
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._on_signal)
        try:
            yield
        finally:
            for number in _SIGNALS:
                loop.remove_signal_handler(number)

    def _on_signal(self) -> None:
        self.force_exit = self.should_exit
        self.should_exit = True
        self._app.state.is_draining = True


def listen(settings: ServerSettings) -> socket.socket:
    """Return a socket that listens, before anything slow is done.

    Raises:
        ConfigError: the address is not there, or another program listens.
    """
    try:
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        return socket.create_server((settings.host, settings.port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise ConfigError(
            f"port={settings.port} of {settings.host} cannot be used ({error.strerror}); choose "
            "another port"
        ) from error


def server_config(app: FastAPI, settings: ServerSettings) -> uvicorn.Config:
    """Return how uvicorn serves an application."""
    return uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        server_header=False,
        ws_max_size=settings.max_body_bytes,
        # Pongs are not read while a frame waits behind a long feed, so they cannot be timed.
        ws_ping_timeout=None,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=max(1, int(settings.drain_seconds)),
    )


async def serve(
    app: FastAPI,
    manager: SessionManager,
    settings: ServerSettings,
    listening: socket.socket,
    on_ready: Callable[[int], None],
) -> None:
    """Serve an application until a signal, and close its manager.

    Args:
        app: to serve.
        manager: of its sessions.
        settings: how long running turns may take to end.
        listening: see `listen`.
        on_ready: called with the port once requests are accepted.
    """
    manager.start()
    try:
        await Server(server_config(app, settings), app, on_ready).serve(sockets=[listening])
    finally:
        await app.state.responses.close()
        await manager.close(drain_seconds=settings.drain_seconds)
