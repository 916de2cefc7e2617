"""`/v1/sessions` over a manager with the tiny chat model; each message says how visible it is."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send

from streamingllm import LanguageModel, load_model
from streamingllm.server.errors import add_error_handlers
from streamingllm.server.routes import sessions
from streamingllm.server.schemas.sessions import visibility_of
from streamingllm.sessions.manager import SessionManager
from streamingllm.sessions.transcript import Message
from streamingllm.sessions.turn import SessionView
from tests.reference.tiny_chat import write_tiny_chat
from tests.sessions import managers

QUESTION = {"role": "user", "text": "Where is the zebra?"}
ANSWER = {"role": "assistant", "text": "In the barn."}


class OwnerOfHeader:
    """Take the owner from a header, where the server takes it from a key."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope.get("headers", ()))
        scope.setdefault("state", {})["owner"] = headers.get(b"x-owner", b"").decode()
        await self.app(scope, receive, send)


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return load_model(write_tiny_chat(tmp_path_factory.mktemp("chat")), dtype="float64")


@pytest.fixture
def client(lm: LanguageModel, tmp_path: Path) -> Iterator[TestClient]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with managers.managing(lm, tmp_path) as manager:
            app.state.manager = manager
            yield

    app = FastAPI(lifespan=lifespan)
    app.add_middleware(OwnerOfHeader)
    app.include_router(sessions.router)
    add_error_handlers(app)
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


def create(client: TestClient, **body: Any) -> dict[str, Any]:
    answer = client.post("/v1/sessions", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def say(client: TestClient, session_id: str, text: str) -> None:
    """Answer a question in a session."""
    manager: SessionManager = client.app.state.manager  # type: ignore[attr-defined]
    asked = managers.request(text, identity=managers.named(session_id), system_prompt=None)
    assert client.portal is not None
    client.portal.call(managers.turn, manager, asked)


def texts(detail: dict[str, Any]) -> list[str]:
    return [message["text"] for message in detail["messages"]]


def test_a_session_is_made_read_changed_and_deleted(client: TestClient) -> None:
    made = create(
        client,
        id="chat-1",
        system_prompt="Be kind.",
        messages=[QUESTION, ANSWER],
        metadata={"title": "Zebras"},
    )
    assert made["id"] == "chat-1"
    assert [message["role"] for message in made["messages"]] == ["system", "user", "assistant"]
    assert client.get("/v1/sessions/chat-1").json() == made
    changed = client.patch("/v1/sessions/chat-1", json={"metadata": {"title": "Stripes"}}).json()
    assert changed["metadata"] == {"title": "Stripes"}
    assert client.get("/v1/sessions/chat-1").json()["metadata"] == {"title": "Stripes"}
    gone = client.delete("/v1/sessions/chat-1").json()
    assert gone == {"object": "session.deleted", "id": "chat-1", "deleted": True}
    assert client.get("/v1/sessions/chat-1").status_code == 404
    assert client.delete("/v1/sessions/chat-1").status_code == 404


def test_the_list_has_pages(client: TestClient) -> None:
    made = [create(client)["id"] for _ in range(5)]
    listed: list[str] = []
    after = None
    while True:
        parameters = {"limit": "2"} | ({"after": after} if after else {})
        page = client.get("/v1/sessions", params=parameters).json()
        listed += [session["id"] for session in page["data"]]
        after = page["next"]
        assert page["has_more"] == (after is not None)
        if after is None:
            break
    assert sorted(listed) == sorted(made)
    assert len(listed) == 5


def test_a_search_finds_words_of_messages(client: TestClient) -> None:
    found = create(client, messages=[QUESTION])["id"]
    create(client, messages=[ANSWER | {"role": "user"}])
    page = client.get("/v1/sessions", params={"query": "zebra"}).json()
    assert [session["id"] for session in page["data"]] == [found]
    assert client.get("/v1/sessions", params={"query": "quagga"}).json()["data"] == []


def test_each_message_says_whether_it_is_visible(client: TestClient) -> None:
    made = create(client, system_prompt="Be kind.")["id"]
    for number in range(8):
        say(client, made, f"Question {number}?")
    detail = client.get(f"/v1/sessions/{made}").json()
    view = detail["streamingllm"]
    assert view["forgotten_tokens"] > 0
    assert view["visible_tokens"] <= detail["cache_size"] == managers.CACHE_SIZE
    states = [message["visibility"] for message in detail["messages"]]
    assert states[0] == "visible"  # pinned
    assert states[1] == "forgotten"
    assert states[-1] == "visible"
    edge = view["pinned_tokens"] + view["forgotten_tokens"]
    for message in detail["messages"][1:]:
        stop = message["first_token"] + message["num_tokens"]
        assert (message["visibility"] == "forgotten") == (stop <= edge)
        assert (message["visibility"] == "visible") == (message["first_token"] >= edge)


@pytest.mark.parametrize(
    ("first", "stop", "expected"),
    [
        (0, 10, "visible"),  # pinned
        (0, 11, "partly"),  # pinned in part
        (10, 20, "forgotten"),
        (25, 30, "forgotten"),
        (29, 31, "partly"),
        (30, 40, "visible"),
        (30, 30, "visible"),  # not fed yet
    ],
)
def test_forgotten_tokens_follow_the_pinned_ones(first: int, stop: int, expected: str) -> None:
    view = SessionView("s", 60, 40, 10, None, None, 3)
    assert view.num_forgotten_tokens == 20
    assert visibility_of(Message("user", first=first, stop=stop), view) == expected


def test_nothing_is_forgotten_while_there_is_room() -> None:
    view = SessionView("s", 60, 60, 4, 0, "m", 3)
    assert visibility_of(Message("user", first=2, stop=20), view) == "visible"


def test_a_rewind_takes_back_messages_or_turns(client: TestClient) -> None:
    made = create(client)["id"]
    say(client, made, "One?")
    one = client.get(f"/v1/sessions/{made}").json()
    say(client, made, "Two?")
    path = f"/v1/sessions/{made}/rewind"
    back = client.post(path, json={"message_id": one["messages"][-1]["id"]}).json()
    assert texts(back) == texts(one)
    assert back["seen_tokens"] == one["seen_tokens"]
    say(client, made, "Three?")
    assert texts(client.post(path, json={"num_turns": 1}).json()) == texts(one)
    for wrong in ({}, {"num_turns": 9}, {"message_id": "msg_none"}, {"num_turns": -1}):
        assert client.post(path, json=wrong).status_code == 400, wrong


def test_branches_of_branches_know_one_another(client: TestClient) -> None:
    made = create(client)["id"]
    say(client, made, "One?")
    say(client, made, "Two?")
    first = client.get(f"/v1/sessions/{made}").json()
    shared = first["messages"][1]["id"]
    fork = f"/v1/sessions/{made}/fork"
    child = client.post(fork, json={"message_id": shared}).json()
    assert texts(child) == texts(first)[:2]
    assert (child["parent_id"], child["num_shared_messages"]) == (made, 2)
    grandchild = client.post(f"/v1/sessions/{child['id']}/fork", json={}).json()
    family = {made, child["id"], grandchild["id"]}
    for member in family:
        branches = client.get(f"/v1/sessions/{member}").json()["branches"]
        assert {branch["id"] for branch in branches} == family - {member}
    assert texts(client.get(f"/v1/sessions/{made}").json()) == texts(first)


def test_messages_are_appended_and_cut_out(client: TestClient) -> None:
    made = create(client, messages=[QUESTION])["id"]
    path = f"/v1/sessions/{made}/messages"
    appended = client.post(path, json={"messages": [ANSWER, QUESTION]}).json()["data"]
    assert [message["text"] for message in appended] == [ANSWER["text"], QUESTION["text"]]
    left = client.delete(f"{path}/{appended[0]['id']}").json()
    assert texts(left) == [QUESTION["text"], QUESTION["text"]]
    assert client.delete(f"{path}/msg_none").status_code == 400


def test_a_document_brings_a_session_back(client: TestClient) -> None:
    made = create(client, system_prompt="Be kind.", metadata={"title": "To keep"})["id"]
    say(client, made, "One?")
    before = client.get(f"/v1/sessions/{made}").json()
    document = client.get(f"/v1/sessions/{made}/export")
    assert document.headers["content-type"] == "application/json"
    assert "attachment" in document.headers["content-disposition"]
    again = client.post("/v1/sessions/import", content=document.content).json()
    assert again["id"] != made
    assert texts(again) == texts(before)
    assert again["seen_tokens"] == before["seen_tokens"]
    assert again["metadata"] == {"title": "To keep"}
    listed = client.get("/v1/sessions").json()["data"]
    deep = document.content.replace(b"To keep", b"[" * 200 + b"]" * 200).replace(b'"[', b"[")
    deep = deep.replace(b']"', b"]")
    half = document.content.replace(b"To keep", b"\\ud800")
    for wrong in (b"", b"{}", b"[1]", document.content[:-9], b"\xff", b"[" * 20_000, deep, half):
        assert client.post("/v1/sessions/import", content=wrong).status_code == 400, wrong
    assert client.get("/v1/sessions").json()["data"] == listed


def test_stop_tells_whether_an_answer_ran(client: TestClient) -> None:
    made = create(client)["id"]
    stopped = client.post(f"/v1/sessions/{made}/stop").json()
    assert stopped == {"object": "session.stopped", "id": made, "stopped": False}
    assert client.post("/v1/sessions/none/stop").status_code == 404


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("PATCH", ""),
        ("DELETE", ""),
        ("POST", "/messages"),
        ("DELETE", "/messages/{message}"),
        ("POST", "/rewind"),
        ("POST", "/fork"),
        ("POST", "/stop"),
        ("GET", "/export"),
    ],
)
def test_another_owner_finds_nothing(client: TestClient, method: str, path: str) -> None:
    made = create(client, messages=[QUESTION])
    bodies: dict[str, Any] = {
        "": {"metadata": {}},
        "/messages": {"messages": [ANSWER]},
        "/rewind": {"num_turns": 0},
    }
    url = f"/v1/sessions/{made['id']}{path.format(message=made['messages'][0]['id'])}"
    body = bodies.get(path, {}) if method in ("POST", "PATCH") else None
    content = None if body is None else json.dumps(body)
    headers = {"content-type": "application/json", "x-owner": "other"}
    answer = client.request(method, url, content=content, headers=headers)
    missing = client.request(
        method, url.replace(made["id"], "sess_none"), content=content, headers=headers
    )
    assert answer.status_code == missing.status_code == 404
    assert answer.text == missing.text.replace("sess_none", made["id"])
    assert client.get("/v1/sessions", headers={"x-owner": "other"}).json()["data"] == []
    assert client.get(f"/v1/sessions/{made['id']}").json() == made


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "", {"unknown": 1}),
        ("POST", "", {"eviction": "page"}),
        ("POST", "", {"id": "two words"}),
        ("POST", "", {"messages": [{"role": "user", "text": 5}]}),
        ("POST", "", {"messages": [{"role": "wizard", "text": ""}]}),
        ("POST", "", {"metadata": {"title": {"deep": 1}}}),
        ("POST", "/{id}/fork", {"message_id": "msg_none"}),
        ("PATCH", "/{id}", {}),
        ("GET", "?limit=0", None),
        ("GET", "?limit=one", None),
        ("GET", "?order=asc", None),
        ("GET", "?after=nothing", None),
    ],
)
def test_what_cannot_be_done_is_refused(
    client: TestClient, method: str, path: str, body: Any
) -> None:
    made = create(client)["id"]
    content = None if body is None else json.dumps(body)
    answer = client.request(method, f"/v1/sessions{path.format(id=made)}", content=content)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["message"]
    assert len(client.get("/v1/sessions").json()["data"]) == 1


def test_an_id_is_taken_once(client: TestClient) -> None:
    create(client, id="mine")
    assert client.post("/v1/sessions", json={"id": "mine"}).status_code == 409
    other = client.post("/v1/sessions", json={"id": "mine"}, headers={"x-owner": "other"})
    assert other.status_code == 200


def test_every_answer_is_described(client: TestClient) -> None:
    described = client.get("/openapi.json").json()["paths"]
    assert len(described) == 9
    for path, methods in described.items():
        for method, operation in methods.items():
            content = operation["responses"]["200"]["content"]["application/json"]["schema"]
            assert content, (path, method)
            errors = set(operation["responses"]) - {"200"}
            assert "400" in errors
            assert ("404" in errors) == ("session_id" in path)
            assert operation["description"].endswith(".")
