"""`/v1/streams/{id}`: a WebSocket that takes an unending feed and answers when asked."""

from __future__ import annotations

import contextlib

from fastapi import APIRouter, WebSocket, WebSocketDisconnect

from streamingllm.errors import StreamingLLMError
from streamingllm.server.frames import next_frame
from streamingllm.server.streams import StreamConnection

router = APIRouter()
_POLICY_VIOLATION = 1008


@router.websocket("/v1/streams/{stream_id}")
async def stream(websocket: WebSocket, stream_id: str) -> None:
    """Feed a stream, such as a meeting or a log, and ask about it at any time."""
    state = websocket.app.state
    await websocket.accept()
    connection = StreamConnection(
        state.manager,
        websocket.state.owner,
        websocket.send_text,
        session_id=stream_id,
        defaults=state.settings.sampling_defaults(),
    )
    try:
        await connection.start()
        while True:
            await connection.receive(await next_frame(websocket))
    except StreamingLLMError as error:  # the id is none
        await websocket.close(_POLICY_VIOLATION, str(error)[:120])
    except (WebSocketDisconnect, RuntimeError):
        with contextlib.suppress(RuntimeError, WebSocketDisconnect):
            await websocket.close()
    finally:
        await connection.close()
