"""The server that answers: send requests on, and tell its failures in the API's shape."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx2

from streamingllm.errors import ConfigError
from streamingllm.server.errors import ApiError, error_body

_NOT_SENT_ON = frozenset(
    (
        *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te"),
        *("trailer", "transfer-encoding", "upgrade", "host", "content-length"),
        *("content-encoding", "accept-encoding", "date", "server"),
    )
)
# Words by which OpenAI, vLLM, llama.cpp, Ollama, SGLang and TGI say that a request is too long.
_TOO_LONG = (
    *("context_length_exceeded", "context length", "context size", "context window"),
    *("maximum context", "exceed_context_size", "too many tokens", "input is too long"),
    *("must be less than", "must have less than"),
)


class Upstream:
    """Send requests to a server and return its answers.

    Args:
        url: of the server, with or without `/v1`.
        key: sent in the place of the client's key; "" sends the client's own.
        connect_seconds: until a connection counts as failed. Answers may take any time.

    Raises:
        ConfigError: the URL is none.
    """

    def __init__(self, url: str, *, key: str = "", connect_seconds: float = 10.0) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        if not self.url.startswith(("http://", "https://")):
            raise ConfigError(f"upstream={url!r} is no URL; give one such as http://127.0.0.1:8000")
        self._key = key
        self._client = httpx2.AsyncClient(
            timeout=httpx2.Timeout(None, connect=connect_seconds), trust_env=False
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    @asynccontextmanager
    async def answer(
        self, method: str, path: str, query: str, headers: Mapping[str, str], body: bytes
    ) -> AsyncIterator[httpx2.Response]:
        """Send a request; yield the answer, whose body is not read yet.

        Raises:
            ApiError: the server cannot be reached, or breaks off (502).
        """
        sent = {name: value for name, value in headers.items() if name not in _NOT_SENT_ON}
        sent["accept-encoding"] = "identity"
        if self._key:
            sent["authorization"] = f"Bearer {self._key}"
        url = f"{self.url}{path}{f'?{query}' if query else ''}"
        try:
            async with self._client.stream(method, url, headers=sent, content=body) as answer:
                yield answer
        except httpx2.ConnectError as error:
            raise ApiError(
                502,
                f"upstream={self.url!r} cannot be reached; start it or name another one",
                code="upstream_unreachable",
            ) from error
        except httpx2.TransportError as error:
            raise ApiError(
                502,
                f"upstream={self.url!r} broke off ({type(error).__name__}); send the request again",
                code="upstream_failed",
            ) from error


def passed_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers of an answer that a client gets."""
    return {name: value for name, value in headers.items() if name.lower() not in _NOT_SENT_ON}


def error_of(status: int, body: bytes) -> Any:
    """Return an upstream's error in the API's shape: its own words if it has that shape."""
    try:
        told = json.loads(body)
    except ValueError:
        told = None
    if isinstance(told, dict) and isinstance(told.get("error"), dict):
        return told
    text = body.decode(errors="replace").strip()[:500] or "no reason was given"
    return error_body("openai", ApiError(status, f"upstream answered {status}: {text}"))


def is_too_long(body: bytes) -> bool:
    """Return whether an error says that a request does not fit into the context."""
    text = body.decode(errors="replace").lower()
    return any(words in text for words in _TOO_LONG)


async def event_lines(answer: httpx2.Response) -> AsyncIterator[str]:
    """Yield the lines of a stream of events, which end with LF, or with CR and LF.

    `aiter_lines` also ends lines at characters such as U+2028, which may stand in JSON.
    """
    rest = b""
    async for part in answer.aiter_bytes():
        *lines, rest = (rest + part).split(b"\n")
        for line in lines:
            yield line.removesuffix(b"\r").decode(errors="replace")
    if rest:
        yield rest.decode(errors="replace")
