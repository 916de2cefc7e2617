"""A real server with the default model, and Chromium with a clean profile for each test."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from tests.page.driver import Driver

START_SECONDS = 180
CACHE_SIZE = 512


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def serve(data_dir: Path, *flags: str) -> Iterator[str]:
    """Run `streamingllm serve` and yield its address."""
    port = _free_port()
    command = [sys.executable, "-m", "streamingllm", "serve", "--model", "smollm2-135m-instruct"]
    command += ["--port", str(port), "--data-dir", str(data_dir), "--cache-size", str(CACHE_SIZE)]
    log = data_dir / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen([*command, *flags], stdout=output, stderr=output)
        try:
            address = f"http://127.0.0.1:{port}"
            _wait_until_ready(address, process, log)
            yield address
        finally:
            process.terminate()
            process.wait(60)


def _wait_until_ready(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(URLError, ConnectionError), urlopen(f"{address}/ready"):
            return
        time.sleep(0.2)
    raise RuntimeError(f"the server is not ready: {log.read_text()[-2000:]}")


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a server; STREAMINGLLM_PAGE_URL names one that runs already."""
    if running := os.environ.get("STREAMINGLLM_PAGE_URL"):
        yield running.rstrip("/")
        return
    with serve(tmp_path_factory.mktemp("server"), "--disclosure", "You talk to a program.") as url:
        yield url


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium of the system, without a window."""
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
    if path is None:
        pytest.skip("Chromium is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Driver]:
    """The page in a profile of its own; an error or a foreign request fails the test."""
    context = browser.new_context(viewport={"width": 1200, "height": 800}, accept_downloads=True)
    context.set_default_timeout(float(os.environ.get("STREAMINGLLM_PAGE_TIMEOUT", "60")) * 1000)
    driver = Driver(context.new_page(), address)
    yield driver
    driver.check()
    context.close()
