"""`/v1/capabilities`: what can be done with sessions here, for pages and clients."""

from __future__ import annotations

from fastapi import APIRouter

from streamingllm.server.schemas.capabilities import ALL, Capabilities

router = APIRouter(tags=["operation"])


@router.get("/v1/capabilities")
async def capabilities() -> Capabilities:
    """Say what can be done with sessions here."""
    return Capabilities(answers="responses", can=[*ALL])
