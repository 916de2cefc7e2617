"""`streamingllm serve` as a process: ready, in use, drained."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx2
import pytest

from streamingllm.server.setting_fields import default_of, example_of, facts_of, flag_of
from streamingllm.server.settings import setting_fields
from tests.reference.tiny_chat import write_tiny_chat


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_chat(tmp_path_factory.mktemp("served") / "tiny-chat")


class Process:
    """A server in a process of its own."""

    def __init__(self, model: Path, data: Path, *options: str, environment: Any = None) -> None:
        command = [sys.executable, "-m", "streamingllm", "serve", "--model", str(model)]
        command += ["--port", "0", "--data-dir", str(data), "--cache-size", "64"]
        command += ["--max-streams", "2", "--no-compile", *options]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment or {})},
        )

    def ready(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.stderr.read() if self.process.stderr else ""
        facts: dict[str, Any] = json.loads(line)
        return facts

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout=60)


@pytest.fixture
def served(model: Path, tmp_path: Path) -> Iterator[tuple[Process, str]]:
    process = Process(
        model, tmp_path / "data", "--json", environment={"STREAMINGLLM_PING_SECONDS": "1"}
    )
    url = process.ready()["url"]
    yield process, url
    process.close()


def test_it_says_one_line_serves_and_ends_with_zero(served: tuple[Process, str]) -> None:
    process, url = served
    assert httpx2.get(f"{url}/ready").status_code == 200
    body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 3}
    headers = {"x-session-id": "kept"}
    answer = httpx2.post(f"{url}/v1/chat/completions", json=body, headers=headers).json()
    assert answer["streamingllm"]["session_id"] == "kept"
    assert process.stop() == 0
    assert process.process.stdout is not None
    assert process.process.stdout.read() == ""


def test_a_running_stream_ends_by_itself_after_sigterm(served: tuple[Process, str]) -> None:
    process, url = served
    body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 300, "stream": True}
    with httpx2.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=60) as stream:
        lines = stream.iter_lines()
        next(lines)
        process.process.send_signal(signal.SIGTERM)
        rest = [line for line in lines if line]
    assert rest[-1] == "data: [DONE]"
    assert '"finish_reason":"' in "".join(rest)
    assert process.process.wait(timeout=60) == 0


def test_a_second_signal_cuts_off(served: tuple[Process, str]) -> None:
    process, url = served
    body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 10**6, "stream": True}

    def read() -> None:
        try:
            with httpx2.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=60) as s:
                for _ in s.iter_lines():
                    has_begun.set()
        except httpx2.HTTPError:
            pass

    has_begun = threading.Event()
    reader = threading.Thread(target=read)
    reader.start()
    assert has_begun.wait(60)
    process.process.send_signal(signal.SIGTERM)
    process.process.send_signal(signal.SIGTERM)
    assert process.process.wait(timeout=60) == 0
    reader.join()


def test_a_port_in_use_and_a_public_address_are_refused_in_one_line(
    model: Path, tmp_path: Path, served: tuple[Process, str]
) -> None:
    port = served[1].rpartition(":")[2]
    for options, word in ((("--port", port), "port"), (("--host", "0.0.0.0"), "api_key")):
        process = Process(model, tmp_path / "other", *options)
        out, err = process.process.communicate(timeout=120)
        assert process.process.returncode == 2, err
        assert out == ""
        assert word in err
        assert "Traceback" not in err


def run_serve(*options: str, **environment: str) -> str:
    command = [sys.executable, "-m", "streamingllm", "serve", *options]
    variables = {**os.environ, "COLUMNS": "250", "TERM": "dumb", **environment}
    done = subprocess.run(command, capture_output=True, text=True, env=variables, check=True)
    return done.stdout


def test_help_lists_every_setting_with_its_default_and_an_example() -> None:
    shown = " ".join(run_serve("--help").split())
    groups = [facts_of(setting).group for setting in setting_fields()]
    assert len(set(groups)) == sum(a != b for a, b in pairwise(["", *groups]))  # each is one panel
    for setting in setting_fields():
        assert flag_of(setting) in shown
        assert f"Example: {example_of(setting)}" in shown, setting.name
        assert f"─ {facts_of(setting).group} ─" in shown
        if default := default_of(setting):
            assert f"Default: {default}." in shown


def test_settings_are_printed_without_keys_and_can_be_read_again(tmp_path: Path) -> None:
    options = (
        "--print-settings",
        "--disk",
        "2GB",
        "--api-key",
        "secret-1",
        "--api-key",
        "secret-2",
    )
    printed = run_serve(*options, STREAMINGLLM_METRICS_KEY="secret-3", STREAMINGLLM_PORT="8001")
    assert "secret" not in printed
    (tmp_path / "server.toml").write_text(printed)
    assert tomllib.loads(printed) == {"disk": 2_000_000_000, "port": 8001}
    read = run_serve("--config", str(tmp_path / "server.toml"), "--print-settings", "--json")
    found = json.loads(read)
    assert (found["disk"], found["port"], found["api_key"]) == (2_000_000_000, 8001, 0)
    assert set(found) == {setting.name for setting in setting_fields()}
