"""`/v1/realtime`: OpenAI's realtime API over WebSocket, for text."""

from __future__ import annotations

import contextlib

from fastapi import APIRouter, WebSocket, WebSocketDisconnect

from streamingllm.server.realtime.connection import RealtimeConnection

router = APIRouter()


@router.websocket("/v1/realtime")
async def realtime(websocket: WebSocket) -> None:
    """Talk with a session; the header `x-session-id` names one that is there."""
    state = websocket.app.state
    offered = websocket.scope.get("subprotocols", [])
    await websocket.accept(subprotocol="realtime" if "realtime" in offered else None)
    connection = RealtimeConnection(
        state.manager,
        websocket.state.owner,
        websocket.send_text,
        session_id=websocket.headers.get("x-session-id"),
        model=state.settings.model,
        defaults=state.settings.sampling_defaults(),
    )
    try:
        await connection.start()
        while True:
            await connection.receive(await websocket.receive_text())
    except (WebSocketDisconnect, RuntimeError):
        with contextlib.suppress(RuntimeError):
            await websocket.close()
    finally:
        await connection.close()
