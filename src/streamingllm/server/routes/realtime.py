"""`/v1/realtime`: OpenAI's realtime API over WebSocket, for text."""

from __future__ import annotations

import contextlib

from fastapi import APIRouter, WebSocket, WebSocketDisconnect

from streamingllm.server.errors import ApiError
from streamingllm.server.frames import next_frame
from streamingllm.server.realtime.connection import RealtimeConnection
from streamingllm.server.served_model import check_model

router = APIRouter()
_POLICY_VIOLATION = 1008


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
        check_model(websocket, websocket.query_params.get("model"))
        await connection.start()
        while True:
            await connection.receive(await next_frame(websocket))
    except ApiError as error:
        await connection.send_error(error)
        await websocket.close(_POLICY_VIOLATION)
    except (WebSocketDisconnect, RuntimeError):
        with contextlib.suppress(RuntimeError, WebSocketDisconnect):
            await websocket.close()
    finally:
        await connection.close()
