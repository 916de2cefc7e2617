"""A server in a process of its own, for clients that know nothing of it.

These tests run in the environment of the clients, without this package: `make test-clients`.
`STREAMINGLLM_COMMAND` is the command of the server; `STREAMINGLLM_URL` names one that runs.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

MODEL = "smollm2-135m-instruct"
CACHE_SIZE = 512
_START_SECONDS = 180

if importlib.util.find_spec("openai") is None:
    collect_ignore_glob = ["test_*.py"]  # the environment of the library, not of the clients


@pytest.fixture(scope="session")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server whose sessions see 512 tokens."""
    running = os.environ.get("STREAMINGLLM_URL")
    if running is not None:
        yield running.rstrip("/")
        return
    with serving(tmp_path_factory.mktemp("server")) as address:
        yield address


@contextmanager
def serving(folder: Path, **further: object) -> Iterator[str]:
    """Start a server with further options, and yield its address."""
    port = _free_port()
    command = shlex.split(os.environ.get("STREAMINGLLM_COMMAND", "streamingllm"))
    options = {
        "model": MODEL,
        "port": port,
        "data-dir": folder,
        "cache-size": CACHE_SIZE,
        "quantize": "int4",
        **further,
    }
    arguments = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen([*command, "serve", *arguments], stdout=log, stderr=log)
    try:
        address = f"http://127.0.0.1:{port}"
        _wait_until_ready(address, server, folder / "server.log")
        yield address
    finally:
        server.terminate()
        server.wait(60)


@pytest.fixture(scope="session")
def openai_url(url: str) -> str:
    """The address that clients of OpenAI take."""
    return f"{url}/v1"


def processor_seconds(url: str) -> float:
    """Seconds of processor time that a server has used, which other programs do not lengthen."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=60) as answer:
        metrics = dict(line.rsplit(" ", 1) for line in answer.read().decode().splitlines())
    return float(metrics["process_cpu_seconds_total"])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_ready(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    give_up = time.monotonic() + _START_SECONDS
    while time.monotonic() < give_up:
        if server.poll() is not None:
            pytest.fail(f"the server ended: {log.read_text(errors='replace')[-2000:]}")
        try:
            with urllib.request.urlopen(f"{address}/ready", timeout=5) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.2)
    pytest.fail(f"the server was not ready: {log.read_text(errors='replace')[-2000:]}")
