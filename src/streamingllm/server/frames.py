"""Read the frames of a WebSocket."""

from __future__ import annotations

from starlette.websockets import WebSocket, WebSocketDisconnect


async def next_frame(websocket: WebSocket) -> str:
    """Return the next frame as text; a binary one is read as UTF-8.

    Raises:
        WebSocketDisconnect: the client is gone.
    """
    message = await websocket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1000))
    text = message.get("text")
    return text if text is not None else (message.get("bytes") or b"").decode(errors="replace")
