"""A gateway in a process of its own."""

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

import httpx2

_COMMAND = "from streamingllm.cli.app import main; main()"


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
