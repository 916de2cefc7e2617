"""A gateway in a process of its own, in front of a server that is one too."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.reference.tiny_chat import write_tiny_chat
from tests.server.server_process import ServerProcess

_COMMAND = "from streamingllm.cli.app import main; main()"


@pytest.fixture(scope="session")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Our own server with a tiny random model and a short window, without a memory."""
    folder = tmp_path_factory.mktemp("upstream")
    model = write_tiny_chat(folder / "tiny")
    options = ("--cache-size", "512", "--no-compile", "--no-page")
    with ServerProcess(model, folder / "data", *options) as server:
        yield server.url


@contextmanager
def gateway_to(url: str, folder: Path, *options: str, **environment: str) -> Iterator[str]:
    """Start a gateway and yield its address."""
    arguments = ["gateway", "--upstream", url, "--port", "0", "--data-dir", str(folder), "--json"]
    arguments += options
    process = subprocess.Popen(
        [sys.executable, "-c", _COMMAND, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    try:
        assert process.stdout is not None
        address = json.loads(process.stdout.readline())["url"]
        while True:
            try:
                httpx2.get(f"{address}/ready")
                break
            except httpx2.TransportError:
                time.sleep(0.05)
        yield address
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


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
