"""Health, metrics, logs and the description of the API, through the whole application."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from fastapi import FastAPI

from streamingllm import LanguageModel
from streamingllm.server.app import create_app
from streamingllm.server.assembly import assemble
from streamingllm.server.json_log import JsonFormatter
from streamingllm.server.running import server_config
from streamingllm.server.settings import ServerSettings
from tests.server.asgi import request
from tests.server.requests import Api

_SECRET = "my secret words"


def metrics_of(api: Api) -> dict[str, float]:
    lines = [line for line in api.get("/metrics").text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def test_health_and_readiness(api: Api) -> None:
    assert api.get("/health").json() == {"status": "ok"}
    assert api.get("/ready").status_code == 200


def test_metrics_count_what_was_done(api: Api) -> None:
    before = metrics_of(api)
    body = {"messages": [{"role": "user", "content": _SECRET}], "max_tokens": 5}
    answer = api.post("/v1/chat/completions", body)
    after = metrics_of(api)

    def change(name: str) -> float:
        return after[name] - before.get(name, 0.0)

    usage = answer.json()["usage"]
    assert change('streamingllm_tokens_total{kind="generated"}') == usage["completion_tokens"] > 0
    reason = answer.json()["choices"][0]["finish_reason"]
    assert change(f'streamingllm_turns_total{{reason="{reason}"}}') == 1
    route = 'method="POST",route="/v1/chat/completions",status="200"'
    assert change(f"streamingllm_requests_total{{{route}}}") == 1
    assert after['streamingllm_sessions{tier="device"}'] >= 1
    assert after['streamingllm_cache_bytes{tier="device"}'] > 0
    if sys.platform == "linux":
        assert change("process_cpu_seconds_total") > 0
    session_id = answer.headers["x-session-id"]
    text = api.get("/metrics").text
    assert session_id not in text
    assert _SECRET not in text
    api.get(f"/v1/sessions/{session_id}")
    assert session_id not in api.get("/metrics").text  # routes are counted by their templates


class Lines(logging.Handler):
    """Keep the lines that are logged."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(JsonFormatter())
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@pytest.fixture
def kept() -> Iterator[Lines]:
    """Lines of the access log."""
    log, kept = logging.getLogger("streamingllm.access"), Lines()
    level = log.level
    log.addHandler(kept)
    log.setLevel(logging.INFO)
    yield kept
    log.removeHandler(kept)
    log.setLevel(level)


def test_the_log_has_one_line_of_json_without_what_users_say(api: Api, kept: Lines) -> None:
    body = {"messages": [{"role": "user", "content": _SECRET}], "max_tokens": 2}
    answer = api.post("/v1/chat/completions", body)
    api.get("/health")  # the line of a request is written after its answer
    found = next(json.loads(li) for li in kept.lines if answer.headers["x-request-id"] in li)
    assert found["route"] == "/v1/chat/completions"
    assert found["status"] == 200
    assert not any(_SECRET in line or "\n" in line for line in kept.lines)


def test_every_route_is_described_with_its_answers(api: Api) -> None:
    described = api.get("/openapi.json").json()
    assert described["openapi"].startswith("3.1")
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            where = f"{method} {path}"
            assert operation["responses"], where
            assert operation.get("summary"), where
            if path.startswith("/v1/"):
                refusals = [code for code in operation["responses"] if code.startswith("4")]
                assert refusals, where
            if method in ("post", "put", "patch"):
                has_id_only = re.search(r"\{[a-z_]+\}/(stop|cancel|export)$", path)
                assert "requestBody" in operation or has_id_only, where


def test_idle_connections_outlive_those_of_clients_and_proxies() -> None:
    """A request on a connection that the server closes meanwhile fails.

    nginx keeps connections to a server for 60 seconds, the clients of OpenAI for 5.
    """
    config = server_config(FastAPI(), ServerSettings())
    assert config.timeout_keep_alive > 60


def test_unknown_routes_and_methods_are_refused_in_shape(api: Api) -> None:
    assert api.get("/v1/nothing").json()["error"]["type"] == "not_found_error"
    answer = api.get("/v1/chat/completions")
    assert answer.status_code == 405
    assert answer.json()["error"]["message"]


def test_requests_of_other_origins_are_refused_by_the_whole_application(server: str) -> None:
    with httpx2.Client(base_url=server) as client:
        headers = {"origin": "https://evil.example"}
        assert client.post("/v1/sessions", json={}, headers=headers).status_code == 403
        assert client.get("/v1/models", headers={"host": "evil.example"}).status_code == 403
        preflight = {**headers, "access-control-request-method": "POST"}
        answer = client.request("OPTIONS", "/v1/sessions", headers=preflight)
        assert "access-control-allow-origin" not in answer.headers


def test_the_page_can_be_left_out(tiny_chat: LanguageModel, tmp_path: Path) -> None:
    settings = ServerSettings(
        data_dir=str(tmp_path), cache_size=64, max_streams=1, compile=False, page=False
    )
    manager = assemble(tiny_chat, settings)
    app = create_app(manager, settings)

    async def statuses() -> list[int]:
        found = [await request(app, path, {"host": "localhost"}) for path in ("/", "/health")]
        await manager.close()
        return [answer.status for answer in found]

    assert asyncio.run(statuses()) == [404, 200]
