"""Put the routes of all APIs into one application."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from streamingllm import __version__
from streamingllm.server.access_log import AccessLogMiddleware
from streamingllm.server.auth import AuthMiddleware
from streamingllm.server.description import DescribedApi, refusals
from streamingllm.server.draining import DrainingMiddleware
from streamingllm.server.errors import add_error_handlers
from streamingllm.server.limits import BodyLimitMiddleware, KeyLimitMiddleware
from streamingllm.server.metrics import Metrics
from streamingllm.server.origins import LOOPBACK_NAMES, OriginMiddleware
from streamingllm.server.responses.runs import ResponseRuns
from streamingllm.server.routes import (
    anthropic,
    capabilities,
    chat,
    completions,
    conversations,
    health,
    models,
    page,
    realtime,
    responses,
    responses_socket,
    session_memory,
    sessions,
    streams,
)
from streamingllm.server.schemas.anthropic_answers import AnthropicError
from streamingllm.server.settings import ServerSettings
from streamingllm.server.turn_log import TurnLog
from streamingllm.sessions.manager import SessionManager

_ROUTES = (
    capabilities,
    models,
    chat,
    completions,
    responses,
    responses_socket,
    conversations,
    session_memory,
    sessions,
    realtime,
    streams,
)
_SHOWN_HEADERS = ("x-session-id", "x-streamingllm-visible", "x-request-id", "retry-after")


def create_app(manager: SessionManager, settings: ServerSettings) -> FastAPI:
    """Return an application that serves the sessions of a manager.

    Args:
        manager: of the sessions; the caller closes it.
        settings: keys, limits, and what is served.
    """
    app = DescribedApi(
        title="streamingllm",
        version=__version__,
        summary="Conversations that never end, over the APIs of OpenAI and Anthropic.",
        redoc_url=None,
        docs_url=None,
    )
    metrics, turn_log = Metrics(), TurnLog(shows_user_text=settings.log_user_text)
    manager.on_turn = (metrics.count_turn, turn_log.write)
    app.state.manager, app.state.settings, app.state.metrics = manager, settings, metrics
    app.state.responses = ResponseRuns(manager, settings.response_ttl_seconds)
    app.state.is_draining = False
    app.needs_key = bool(settings.keys)
    app.include_router(health.router)
    app.include_router(anthropic.router, responses=refusals(AnthropicError))
    for routes in _ROUTES:
        app.include_router(routes.router, responses=refusals())
    if settings.page:
        app.include_router(page.router)
    add_error_handlers(app)
    _add_middleware(app, settings, metrics)
    return app


def _add_middleware(app: FastAPI, settings: ServerSettings, metrics: Metrics) -> None:
    """Add middleware, the innermost first."""
    app.add_middleware(BodyLimitMiddleware, max_bytes=settings.max_body_bytes)
    app.add_middleware(
        KeyLimitMiddleware,
        max_at_once=settings.max_requests_per_key,
        max_per_minute=settings.max_requests_per_minute,
    )
    app.add_middleware(DrainingMiddleware)
    app.add_middleware(AuthMiddleware, keys=settings.keys, metrics_key=settings.metrics_key)
    if settings.cors_origin:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origin,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=_SHOWN_HEADERS,
        )
    hosts = (*LOOPBACK_NAMES, *settings.allowed_host) if settings.is_loopback else ()
    app.add_middleware(OriginMiddleware, hosts=hosts, origins=settings.cors_origin)
    app.add_middleware(AccessLogMiddleware, metrics=metrics)
