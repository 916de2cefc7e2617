"""Serve `/v1/responses` over WebSocket."""

from __future__ import annotations

import contextlib
from functools import partial

from fastapi import APIRouter, WebSocket, WebSocketDisconnect

from streamingllm.server.frames import next_frame
from streamingllm.server.responses.socket import ResponseSocket
from streamingllm.server.served_model import check_model

router = APIRouter()


@router.websocket("/v1/responses")
async def responses(websocket: WebSocket) -> None:
    """Answer `response.create` with the events that HTTP would stream, one response at a time."""
    state = websocket.app.state
    await websocket.accept()
    connection = ResponseSocket(
        state.responses,
        websocket.state.owner,
        websocket.headers,
        websocket.send_text,
        check_model=partial(check_model, websocket),
        defaults=state.settings.sampling_defaults(),
    )
    try:
        while True:
            await connection.receive(await next_frame(websocket))
    except (WebSocketDisconnect, RuntimeError):
        with contextlib.suppress(RuntimeError, WebSocketDisconnect):
            await websocket.close()
    finally:
        await connection.close()
