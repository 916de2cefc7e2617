"""A gateway in front of a server, each in a process of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from tests.gateway.gateway_process import gateway_to
from tests.reference.tiny_chat import write_tiny_chat
from tests.server.server_process import ServerProcess


@pytest.fixture(scope="session")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Our own server with a tiny random model and a short window, without a memory."""
    folder = tmp_path_factory.mktemp("upstream")
    model = write_tiny_chat(folder / "tiny")
    options = ("--cache-size", "512", "--no-compile", "--no-page")
    with ServerProcess(model, folder / "data", *options) as server:
        yield server.url


@pytest.fixture(scope="session")
def gateway(upstream: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A gateway to that server."""
    with gateway_to(upstream, tmp_path_factory.mktemp("gateway")) as address:
        yield address


def chat(address: str, session: str | None, *messages: dict[str, Any], **fields: Any) -> Any:
    """Post a chat completion."""
    headers = {} if session is None else {"x-session-id": session}
    retries = fields.pop("retry_count", None)
    if retries is not None:
        headers["x-stainless-retry-count"] = str(retries)
    headers |= fields.pop("headers", {})
    body = {"messages": messages, "max_tokens": 4, "temperature": 0, **fields}
    url = f"{address}/v1/chat/completions"
    return httpx2.post(url, json=body, headers=headers, timeout=None)


def said(text: str, role: str = "user") -> dict[str, Any]:
    """Return a message."""
    return {"role": role, "content": text}
