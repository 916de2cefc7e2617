"""`/health`, `/ready` and `/metrics`: for those who operate a server."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from streamingllm.server.description import refusals
from streamingllm.server.schemas.common import ErrorBody

_REFUSALS = refusals()
router = APIRouter(tags=["operation"], responses={403: _REFUSALS[403]})


@router.get("/health")
async def health() -> dict[str, str]:
    """Say that the process is alive."""
    return {"status": "ok"}


@router.get("/ready", responses={503: {"model": ErrorBody, "description": "It is draining."}})
async def ready(request: Request) -> Response:
    """Say whether requests are accepted."""
    if request.app.state.is_draining:
        body = {"error": {"message": "The server is draining; retry later", "type": "unavailable"}}
        return JSONResponse(body, 503)
    return JSONResponse({"status": "ready"})


@router.get(
    "/metrics",
    response_class=PlainTextResponse,
    responses={401: _REFUSALS[401]},
)
async def metrics(request: Request) -> Response:
    """Return metrics in Prometheus' text format."""
    state = request.app.state
    text = state.metrics.as_text(await state.manager.stats())
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")
