"""One key sees nothing of another's: every route and method, and every WebSocket."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import APIWebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from streamingllm import LanguageModel
from streamingllm.server.app import create_app
from streamingllm.server.assembly import assemble
from streamingllm.server.settings import ServerSettings

ALICE = {"authorization": "Bearer key-of-alice"}
BOB = {"authorization": "Bearer key-of-bob"}
HOST = {"host": "127.0.0.1"}
SECRET = "zebra7731"
SESSION = "private"
CHAT = "/v1/chat/completions"
SHORT = {"max_tokens": 4, "temperature": 0}
ASKED = {"messages": [{"role": "user", "content": "hello"}], **SHORT}

# Routes that show nothing of anybody.
OPEN = {"/health", "/ready", "/metrics", "/v1/models", "/v1/models/{model_id}", "/v1/capabilities"}
# Routes that list what is one's own, and those that make something new.
LISTS = {"/v1/sessions"}
MAKES = {
    "POST /v1/sessions": {"id": SESSION},
    "POST /v1/sessions/import": {"format": "unknown"},
    "POST /v1/completions": {"prompt": "hello", **SHORT},
    "POST /v1/chat/completions": ASKED,
    "POST /v1/messages": ASKED,
    "POST /v1/messages/count_tokens": {"messages": ASKED["messages"]},
    "POST /v1/responses": {"input": "hello", "max_output_tokens": 16},
    "POST /v1/responses/compact": {"input": "hello", "model": "tiny"},
    "POST /v1/responses/input_tokens": {"input": "hello"},
    "POST /v1/conversations": {},
}
# Bodies of the routes that name something of Alice's, without which they would be refused anyway.
BODIES = {
    "PATCH /v1/sessions/{session_id}": {"metadata": {"title": "mine now"}},
    "POST /v1/sessions/{session_id}/messages": {"messages": [{"role": "user", "text": "x"}]},
    "POST /v1/sessions/{session_id}/rewind": {"num_turns": 1},
    "POST /v1/sessions/{session_id}/fork": {},
    "POST /v1/sessions/{session_id}/forget": {"message_ids": ["msg_1"]},
    "POST /v1/sessions/{session_id}/facts": {"text": "mine now"},
    "PATCH /v1/sessions/{session_id}/facts/{fact_id}": {"text": "mine now"},
    "POST /v1/conversations/{conversation_id}": {"metadata": {"title": "mine now"}},
    "POST /v1/conversations/{conversation_id}/items": {
        "items": [{"type": "message", "role": "user", "content": "x"}]
    },
}
SOCKETS = {"/v1/realtime", "/v1/streams/{stream_id}", "/v1/responses"}


@pytest.fixture(scope="module")
def app(tiny_chat: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    settings = ServerSettings(
        model="tiny",
        data_dir=str(tmp_path_factory.mktemp("isolation")),
        cache_size=128,
        max_streams=4,
        default_max_tokens=8,
        api_key=("key-of-alice", "key-of-bob"),
        compile=False,
    )
    return create_app(assemble(tiny_chat, settings), settings)


@pytest.fixture(scope="module")
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        yield client
        assert client.portal is not None
        client.portal.call(app.state.manager.close)


@pytest.fixture(scope="module")
def hers(app: FastAPI, client: TestClient) -> dict[str, str]:
    """Ids of what Alice has, by the name of the parameter of a path."""
    said = {"messages": [{"role": "user", "content": f"my secret is {SECRET}"}], **SHORT}
    named = {**ALICE, "x-session-id": SESSION}
    answer = client.post(CHAT, json=said, headers=named).json()
    ids = {
        "session_id": SESSION,
        "message_id": answer["streamingllm"]["message_id"],
        "answer": answer["choices"][0]["message"]["content"],
        "stream_id": SESSION,
    }
    told = {"text": f"it is {SECRET}"}
    fact = client.post(f"/v1/sessions/{SESSION}/facts", json=told, headers=ALICE)
    assert fact.status_code == 200, fact.text
    ids["fact_id"] = fact.json()["id"]
    if "/v1/responses" in app.openapi()["paths"]:
        body = {"input": f"my secret is {SECRET}", "max_output_tokens": 16}
        ids["response_id"] = client.post("/v1/responses", json=body, headers=ALICE).json()["id"]
    if "/v1/conversations" in app.openapi()["paths"]:
        item = {"type": "message", "role": "user", "content": f"my secret is {SECRET}"}
        made = client.post("/v1/conversations", json={"items": [item]}, headers=ALICE).json()
        items = client.get(f"/v1/conversations/{made['id']}/items", headers=ALICE).json()
        ids |= {"conversation_id": made["id"], "item_id": items["data"][0]["id"]}
    return ids


def operations(app: FastAPI) -> list[tuple[str, str]]:
    """Every method of every path of the API."""
    return [
        (method.upper(), path)
        for path, methods in app.openapi()["paths"].items()
        for method in methods
        if path not in OPEN
    ]


def test_every_operation_is_refused_or_shows_nothing(
    app: FastAPI, client: TestClient, hers: dict[str, str]
) -> None:
    before = client.get(f"/v1/sessions/{SESSION}/export", headers=ALICE).content
    assert SECRET.encode() in before
    for method, path in operations(app):
        name = f"{method} {path}"
        where = path.format_map(hers)
        if "{" in path:
            response = client.request(method, where, headers=BOB, json=BODIES.get(name))
            assert response.status_code == 404, (name, response.text)
        elif method == "GET":
            assert path in LISTS, f"{name}: say here what another key sees of it"
            response = client.get(where, headers=BOB)
            assert response.json()["data"] == [], name
        else:
            assert name in MAKES, f"{name}: say here what another key may do with it"
            headers = {**BOB, "x-session-id": SESSION}
            response = client.request(method, where, headers=headers, json=MAKES[name])
            assert response.status_code in (200, 400), (name, response.text)
        assert SECRET not in response.text, name
        _delete_all(client, BOB)
    assert client.get(f"/v1/sessions/{SESSION}/export", headers=ALICE).content == before


def test_every_operation_wants_a_key(
    app: FastAPI, client: TestClient, hers: dict[str, str]
) -> None:
    for method, path in operations(app):
        for headers in ({}, {"authorization": "Bearer key-of-nobody"}):
            response = client.request(method, path.format_map(hers), headers=headers)
            assert response.status_code == 401, (method, path)


def test_what_is_anothers_looks_like_what_is_not_there(
    client: TestClient, hers: dict[str, str]
) -> None:
    path = "/v1/sessions/{}/fork"
    answers = []
    for session_id in (SESSION, "unknown"):
        response = client.post(path.format(session_id), json={}, headers=BOB)
        answers.append((response.status_code, response.text.replace(session_id, "ID")))
    assert answers[0] == answers[1]


def test_the_same_history_does_not_find_anothers_session(
    client: TestClient, hers: dict[str, str]
) -> None:
    history = [
        {"role": "user", "content": f"my secret is {SECRET}"},
        {"role": "assistant", "content": hers["answer"]},
        {"role": "user", "content": "and?"},
    ]
    body = {"messages": history, **SHORT}
    bobs = client.post(CHAT, json=body, headers=BOB).json()
    assert bobs["streamingllm"]["session_id"] != SESSION
    # Only what every session begins with was read before.
    fresh = client.post(CHAT, json=ASKED, headers={**BOB, "x-session-id": "fresh"}).json()
    cached = [b["usage"]["prompt_tokens_details"]["cached_tokens"] for b in (bobs, fresh)]
    assert cached[0] == cached[1]
    _delete_all(client, BOB)


@pytest.mark.parametrize(
    "header", ["x-session-id", "x-openwebui-chat-id", "x-chat-id", "x-conversation-id"]
)
def test_a_header_names_ones_own(client: TestClient, hers: dict[str, str], header: str) -> None:
    client.post(CHAT, json=ASKED, headers={**ALICE, header: "same"})
    answers = {}
    for who, name in ((BOB, "same"), (BOB, "never-used")):
        said = client.post(CHAT, json=ASKED, headers={**who, header: name}).json()
        answers[name] = (said["choices"][0]["message"]["content"], said["usage"])
    assert answers["same"] == answers["never-used"]
    sessions = client.get("/v1/sessions", headers=BOB).json()["data"]
    assert {session["num_messages"] for session in sessions} == {2}
    _delete_all(client, BOB)


def test_metadata_names_ones_own(client: TestClient, hers: dict[str, str]) -> None:
    body = {**ASKED, "metadata": {"session_id": SESSION}}
    answer = client.post(CHAT, json=body, headers=BOB).json()
    detail = client.get(f"/v1/sessions/{SESSION}", headers=BOB)
    assert SECRET not in detail.text
    assert answer["streamingllm"]["seen_tokens"] == detail.json()["seen_tokens"]
    _delete_all(client, BOB)


def test_search_finds_ones_own(client: TestClient, hers: dict[str, str]) -> None:
    for parameters in ({"query": SECRET}, {"after": SESSION}, {"limit": 100}):
        response = client.get("/v1/sessions", params=parameters, headers=BOB)
        assert SECRET not in response.text
        assert response.json().get("data", []) == []
    assert client.get("/v1/sessions", headers=ALICE).json()["data"]


def test_open_routes_tell_nothing(app: FastAPI, client: TestClient, hers: dict[str, str]) -> None:
    for path in OPEN:
        response = client.get(path.format(model_id="tiny"), headers=BOB)
        assert response.status_code == 200
        for word in (SECRET, SESSION, "key-of-alice"):
            assert word not in response.text, (path, word)


def test_ids_cannot_be_guessed(client: TestClient, hers: dict[str, str]) -> None:
    made = [client.post("/v1/sessions", json={}, headers=BOB).json()["id"] for _ in range(2)]
    digits = [session_id.rpartition("_")[2] for session_id in made]
    assert all(len(text) >= 32 and int(text, 16) for text in digits)
    assert sum(a != b for a, b in zip(*digits, strict=True)) > 16
    _delete_all(client, BOB)


def test_every_socket_is_known(app: FastAPI) -> None:
    found = {route.path for route in app.routes if isinstance(route, APIWebSocketRoute)}
    assert found <= SOCKETS


@pytest.mark.parametrize("path", ["/v1/realtime", f"/v1/streams/{SESSION}"])
def test_a_socket_wants_a_key(client: TestClient, path: str) -> None:
    for headers in ({}, {"authorization": "Bearer key-of-nobody"}):
        with (
            pytest.raises(WebSocketDisconnect) as caught,
            client.websocket_connect(path, headers=HOST | headers),
        ):
            pass
        assert "key" in caught.value.reason


def test_a_realtime_socket_opens_ones_own(client: TestClient, hers: dict[str, str]) -> None:
    headers = {**HOST, **BOB, "x-session-id": SESSION}
    heard = []
    with client.websocket_connect("/v1/realtime", headers=headers) as socket:
        heard.append(socket.receive_text())
        for kind in ("conversation.item.retrieve", "conversation.item.delete"):
            socket.send_text(json.dumps({"type": kind, "item_id": hers["message_id"]}))
            heard.append(socket.receive_text())
            assert json.loads(heard[-1])["type"] == "error"
        socket.send_text(json.dumps(_realtime_item("hello")))
        socket.send_text(json.dumps({"type": "response.create"}))
        while json.loads(heard[-1])["type"] != "response.done":
            heard.append(socket.receive_text())
    assert SECRET not in "".join(heard)
    detail = client.get(f"/v1/sessions/{SESSION}", headers=BOB).json()
    assert [message["text"] for message in detail["messages"]][:1] == ["hello"]
    _delete_all(client, BOB)


def test_a_stream_opens_ones_own(client: TestClient, hers: dict[str, str]) -> None:
    with client.websocket_connect(f"/v1/streams/{SESSION}", headers=HOST | BOB) as socket:
        heard = [socket.receive_text()]
        alices = client.get(f"/v1/sessions/{SESSION}", headers=ALICE).json()
        assert json.loads(heard[0])["streamingllm"]["seen_tokens"] < alices["seen_tokens"]
        socket.send_text(json.dumps({"type": "ask", "id": "1", "question": "what was said?"}))
        while json.loads(heard[-1])["type"] not in ("answer", "error"):
            heard.append(socket.receive_text())
    assert SECRET not in "".join(heard)
    _delete_all(client, BOB)


def _realtime_item(text: str) -> dict[str, Any]:
    content = [{"type": "input_text", "text": text}]
    item = {"type": "message", "role": "user", "content": content}
    return {"type": "conversation.item.create", "item": item}


def _delete_all(client: TestClient, who: dict[str, str]) -> None:
    for session in client.get("/v1/sessions?limit=100", headers=who).json()["data"]:
        assert client.delete(f"/v1/sessions/{session['id']}", headers=who).status_code == 200
